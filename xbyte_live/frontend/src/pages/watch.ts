import { Watch } from './watch/watch';

void Watch.open();
