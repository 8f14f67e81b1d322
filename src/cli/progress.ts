import type { Clock } from '#base/clock.ts'
import type { Output, Streams } from './output.ts'

/* How far something long is: one line that is rewritten on a terminal, plain lines from time to time in a pipe, and objects with --json. */

const PIPE_EVERY_MS = 5_000
const TERMINAL_EVERY_MS = 100

export interface Progress {
  /** `line` for people, `value` for machines. May be called as often as one likes. */
  update(line: string, value: object): void
  /** The line on the terminal goes; what is printed next stands in its place. */
  end(): void
}

export function createProgress(streams: Streams, output: Output, clock: Clock): Progress {
  const terminal = (streams.err as { isTTY?: boolean }).isTTY === true && !output.json
  const everyMs = terminal ? TERMINAL_EVERY_MS : PIPE_EVERY_MS
  let lastMs = Number.NEGATIVE_INFINITY
  let lastLine = ''
  let shown = false
  return {
    update(line, value) {
      const now = clock.bootMs()
      if (line === lastLine || now - lastMs < everyMs) return
      lastMs = now
      lastLine = line
      if (output.json) streams.out.write(`${JSON.stringify({ event: 'progress', ...value })}\n`)
      else if (terminal) streams.err.write(`\r\u001B[2K${line}`)
      else streams.err.write(`${line}\n`)
      shown = terminal
    },
    end() {
      if (shown) streams.err.write('\r\u001B[2K')
      shown = false
    },
  }
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** 1536 as "1.5 KiB". */
export function bytesText(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit++
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1
  return `${value.toFixed(digits)} ${UNITS[unit]}`
}
