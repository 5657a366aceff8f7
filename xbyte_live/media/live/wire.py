"""Pure: the messages between the service, the fork server and the feeds it forks."""

import struct

FORK, KILL = 1, 2
FORKED, EXITED = 1, 2
REQUEST = struct.Struct("!BIi")  # what, size of what follows, number of the feed
ANSWER = struct.Struct("!Biii")  # what, number of the feed, process id, exit code

EXIT_FAILED, EXIT_MEMORY, EXIT_PARENT_GONE = 70, 71, 72
