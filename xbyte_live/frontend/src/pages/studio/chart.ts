import uPlot from 'uplot';

import { exact } from '../words';
import type { Earned, Earnings } from './api';
import { deliveries, stepName, volume, type Period } from './periods';

export type Measure = 'amount' | 'bytes' | 'deliveries';

const MB = 1_048_576;

/** Bars over time; what is under the cursor or chosen by arrow keys is said in words. */
export class TimeChart {
  readonly #place: HTMLElement;
  readonly #reading: HTMLElement;
  #plot: uPlot | null = null;
  #measure: Measure = 'amount';
  #period: Period | null = null;
  #steps: Earned[] = [];
  #at: number | null = null;

  constructor(place: HTMLElement, reading: HTMLElement) {
    this.#place = place;
    this.#reading = reading;
    place.addEventListener('keydown', (event) => this.#move(event));
    place.addEventListener('blur', () => this.#read(null));
    new ResizeObserver(() => this.#fit()).observe(place);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
  }

  show(earnings: Earnings, period: Period, measure: Measure): void {
    const fresh = measure !== this.#measure || period.step !== this.#period?.step || !this.#plot;
    this.#measure = measure;
    this.#period = period;
    this.#steps = everyStep(earnings);
    if (fresh) this.#draw();
    else this.#plot?.setData(this.#data());
    this.#read(this.#at);
  }

  #data(): uPlot.AlignedData {
    const { from = 0, step = 1 } = this.#period ?? {};
    return [
      this.#steps.map((_, index) => from + index * step),
      this.#steps.map((earned) => drawn(earned, this.#measure)),
    ];
  }

  #draw(): void {
    const period = this.#period;
    if (!period) return;
    this.#plot?.destroy();
    const look = getComputedStyle(this.#place);
    const colour = (name: string): string => look.getPropertyValue(`--${name}`).trim();
    const axis: uPlot.Axis = {
      stroke: colour('ink-soft'),
      grid: { stroke: colour('line'), width: 1 },
      ticks: { show: false },
      font: `12px ${look.fontFamily}`,
    };
    const bars = uPlot.paths.bars;
    this.#plot = new uPlot(
      {
        width: Math.max(this.#place.clientWidth, 80),
        height: this.#place.clientHeight,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
        scales: {
          x: { time: true, range: () => [period.from - period.step / 2, period.to - period.step / 2] },
          y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.08 : 1] },
        },
        ...(period.utc ? { tzDate: (seconds: number) => uPlot.tzDate(new Date(seconds * 1000), 'UTC') } : {}),
        axes: [
          { ...axis, size: 30, grid: { show: false }, values: (_plot, ticks) => ticks.map((at) => stepName(at, period)), space: 76 },
          {
            ...axis,
            size: 66,
            values: (_plot, ticks, _axis, _space, apart) =>
              ticks.map((value) => tick(value, apart, this.#measure)),
          },
        ],
        series: [
          {},
          {
            stroke: colour('accent'),
            fill: colour('accent'),
            width: 0,
            points: { show: false },
            ...(bars ? { paths: bars({ size: [0.78, 42], radius: 0.18 }) } : {}),
          },
        ],
        hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx ?? null)] },
      },
      this.#data(),
      this.#place,
    );
  }

  #fit(): void {
    const { clientWidth: width, clientHeight: height } = this.#place;
    if (this.#plot && width > 0) this.#plot.setSize({ width, height });
  }

  #move(event: KeyboardEvent): void {
    const last = this.#steps.length - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || last < 0 || !this.#plot) return;
    event.preventDefault();
    const index = Math.max(0, Math.min(last, (this.#at ?? last + (step < 0 ? 1 : 0)) + step));
    const at = this.#plot.data[0][index] ?? 0;
    this.#plot.setCursor({ left: this.#plot.valToPos(at, 'x'), top: 10 }, false);
    this.#read(index);
  }

  /** The step with the highest bar, or -1 where there is none. */
  #best(): number {
    const heights = this.#steps.map((earned) => drawn(earned, this.#measure));
    const most = Math.max(0, ...heights);
    return most > 0 ? heights.indexOf(most) : -1;
  }

  #read(index: number | null): void {
    this.#at = index;
    const shown = index ?? this.#best();
    const earned = this.#steps[shown];
    const period = this.#period;
    const words =
      earned && period
        ? `${index === null ? 'Most: ' : ''}${stepName(period.from + shown * period.step, period)}: ` +
          `${exact(BigInt(earned.amount))}, ${volume(earned.bytes)}, ${deliveries(earned.deliveries)}`
        : 'Nothing was sold in this time.';
    if (this.#reading.textContent !== words) this.#reading.textContent = words;
  }
}

/** All steps of a time, those without anything too. */
export function everyStep({ from, to, step, series }: Earnings): Earned[] {
  const steps = Array.from({ length: Math.ceil((to - from) / step) }, () => ({
    deliveries: 0,
    bytes: 0,
    amount: '0',
  }));
  for (const { at, deliveries, bytes, amount } of series) {
    steps[Math.floor((at - from) / step)] = { deliveries, bytes, amount };
  }
  return steps;
}

/** How high a bar is; what is said in words is exact. */
function drawn(earned: Earned, measure: Measure): number {
  if (measure === 'amount') return Number(earned.amount) / 1e6;
  return measure === 'bytes' ? earned.bytes / MB : earned.deliveries;
}

/** A mark beside the bars, in the digits that tell it from its neighbours, which are so far apart. */
function tick(value: number, apart: number, measure: Measure): string {
  if (measure === 'amount') {
    const units = Math.round(apart * 1e6);
    const digits = [2, 3, 4, 5].find((places) => units % 10 ** (6 - places) === 0) ?? 6;
    return `$${value.toFixed(digits)}`;
  }
  if (measure === 'bytes') return value >= 1024 ? `${+(value / 1024).toFixed(1)} GB` : `${+value.toFixed(2)} MB`;
  return Number.isInteger(value) ? value.toLocaleString('en') : '';
}
