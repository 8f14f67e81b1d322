import { cpuTimes, foreignShare, type MachineFacts, median } from './machine.ts'

/* What a question about a bound prints: one line per case, and beside each figure how far the machine was ours while it was taken. */

/** A sample during which others took more than this share of the machine is repeated, and marked when that did not help. */
export const FOREIGN_MAX = 0.15
/** Attempts for one sample; the least disturbed one is kept. */
const ATTEMPTS_MAX = 3

export interface Line {
  readonly case: string
  readonly figure: number
  readonly unit: string
  /** What the figure is held against, in the same unit; null: nothing was promised. */
  readonly bound: number | null
  readonly samples: number
  /** Of them, taken while others used the machine. */
  readonly disturbed: number
  /** More figures about the case, by name. */
  readonly also?: Readonly<Record<string, number | string>>
}

/** `most`: the bound must not be exceeded; `least`: it must be reached. */
export type Sense = 'most' | 'least'

export class Lines {
  readonly #json: boolean
  readonly #facts: MachineFacts

  constructor(json: boolean, facts: MachineFacts) {
    this.#json = json
    this.#facts = facts
    this.say(
      `${facts.cores} cores shared by everything (${facts.processor}), ${facts.file_system}, kernel ${facts.kernel}, Node ${facts.node}`,
    )
  }

  /** For the reader of the table; not part of what --json prints to standard output. */
  say(text: string): void {
    if (this.#json) process.stderr.write(`${text}\n`)
    else console.log(text)
  }

  show(line: Line, sense: Sense): void {
    const { bound, figure } = line
    const ratio = bound === null ? null : Number((figure / bound).toFixed(3))
    const ok = bound === null ? null : sense === 'most' ? figure <= bound : figure >= bound
    if (this.#json) {
      const { also, ...plain } = line
      console.log(JSON.stringify({ ...plain, sense, ratio, ok, ...also, ...this.#facts }))
      return
    }
    const held =
      bound === null
        ? ''
        : `  bound ${sense === 'most' ? '<=' : '>='} ${bound}  ratio ${ratio}  ${ok === true ? 'reached' : 'NOT REACHED'}`
    const also = Object.entries(line.also ?? {}).map(([name, value]) => `${name} ${value}`)
    const disturbed =
      line.disturbed > 0 ? `  (${line.disturbed} of ${line.samples} samples disturbed)` : ''
    console.log(
      `${line.case.padEnd(48)} ${String(figure).padStart(9)} ${line.unit}${held}${also.length > 0 ? `  ${also.join(', ')}` : ''}${disturbed}`,
    )
  }
}

export interface Weighed<T> {
  readonly value: T
  readonly foreign: number
}

/** `work`, and the share of the machine that others took meanwhile. `pids`: what is measured, with its children. */
export async function weighed<T>(
  pids: readonly number[],
  work: () => Promise<T>,
): Promise<Weighed<T>> {
  const before = cpuTimes(pids)
  const value = await work()
  return { value, foreign: foreignShare(before, cpuTimes(pids), 0) }
}

/** The least disturbed of a few attempts; the first one that is not disturbed ends them. */
export async function undisturbed<T extends { readonly foreign: number }>(
  sample: () => Promise<T>,
): Promise<T> {
  let best = await sample()
  for (let attempt = 1; attempt < ATTEMPTS_MAX && best.foreign > FOREIGN_MAX; attempt++) {
    const next = await sample()
    if (next.foreign < best.foreign) best = next
  }
  return best
}

export const disturbedOf = (samples: readonly { readonly foreign: number }[]): number =>
  samples.filter(({ foreign }) => foreign > FOREIGN_MAX).length

export const round = (value: number, digits = 0): number => Number(value.toFixed(digits))

export const medianOf = <T>(samples: readonly T[], figure: (sample: T) => number): number =>
  median(samples.map(figure))
