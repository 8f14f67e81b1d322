import { Fault, type FaultKind } from '#base/fault.ts'
import { OPTION_REFUSED } from '#base/config.ts'
import { LOCKED } from '#base/system/files.ts'
import { NOBODY_THERE, PATH_TOO_LONG } from '#base/system/door.ts'
import { AGENT_ABSENT, API_UNAUTHORIZED, API_UNREACHABLE } from '#client/faults.ts'
import { SITE_UNKNOWN } from './up/supervisor.ts'
import { INTERRUPTED, NO_CREDENTIALS, USAGE } from './usage.ts'

/* What commands print. Results go to standard output, everything said on the way to standard error, so that a pipe
 * carries results only. With --json each result is one JSON object on one line, and an error is one on standard error. */

/** Exit codes; docs/operating/install.md explains them. */
export const EXIT = {
  OK: 0,
  /** The server refused, an operation failed, or a verification found a difference. */
  FAILED: 1,
  /** Wrong arguments or configuration; nothing was done. */
  USAGE: 2,
  /** Nothing answers at the address or in the directory. */
  UNREACHABLE: 3,
  /** User, password, token or key were not accepted. */
  UNAUTHORIZED: 4,
  /** Another process already works on this directory. */
  BUSY: 5,
  /** Ctrl-C or a signal, as shells have it. */
  INTERRUPTED: 130,
  /** A mistake in Holdfast itself. */
  INTERNAL: 70,
} as const

const EXIT_OF: ReadonlyMap<FaultKind, number> = new Map([
  [USAGE, EXIT.USAGE],
  [OPTION_REFUSED, EXIT.USAGE],
  [PATH_TOO_LONG, EXIT.USAGE],
  [SITE_UNKNOWN, EXIT.USAGE],
  [NO_CREDENTIALS, EXIT.USAGE],
  [NOBODY_THERE, EXIT.UNREACHABLE],
  [AGENT_ABSENT, EXIT.UNREACHABLE],
  [API_UNREACHABLE, EXIT.UNREACHABLE],
  [API_UNAUTHORIZED, EXIT.UNAUTHORIZED],
  [LOCKED, EXIT.BUSY],
  [INTERRUPTED, EXIT.INTERRUPTED],
])

export interface Output {
  readonly json: boolean
  /** A result: an object for machines, and for people its lines. */
  result(value: object, lines: string | readonly string[]): void
  /** Something said on the way, for people only. */
  say(text: string): void
}

export interface Streams {
  readonly out: { write(text: string): unknown }
  readonly err: { write(text: string): unknown }
}

export function createOutput(json: boolean, { out, err }: Streams): Output {
  return {
    json,
    result(value, lines) {
      if (json) out.write(`${JSON.stringify(value)}\n`)
      else out.write(`${typeof lines === 'string' ? lines : lines.join('\n')}\n`)
    },
    say(text) {
      if (!json) err.write(`${text}\n`)
    },
  }
}

/** Tells an error in the form asked for, and returns the exit code that belongs to it. */
export function reportError(error: unknown, json: boolean, { err }: Streams): number {
  if (error instanceof Fault) {
    const exit = EXIT_OF.get(error.kind) ?? EXIT.FAILED
    const text = error.message.slice(error.code.length + 2)
    if (json) {
      err.write(`${JSON.stringify({ event: 'error', code: error.code, text, exit })}\n`)
    } else err.write(`holdfast: ${text}\n`)
    return exit
  }
  if (isSystemError(error)) {
    const { code, message } = error
    if (json) {
      err.write(`${JSON.stringify({ event: 'error', code, text: message, exit: EXIT.FAILED })}\n`)
    } else err.write(`holdfast: the operating system refused: ${message}\n`)
    return EXIT.FAILED
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
  const exit = EXIT.INTERNAL
  if (json) err.write(`${JSON.stringify({ event: 'error', code: 'INTERNAL', text, exit })}\n`)
  else {
    err.write(
      `holdfast: a mistake in Holdfast itself; please report it with these lines:\n${text}\n`,
    )
  }
  return exit
}

/** No permission, no space, a read-only file system ...: nothing that a stack trace would explain. */
const isSystemError = (error: unknown): error is Error & { code: string } =>
  error instanceof Error && 'syscall' in error && 'code' in error && typeof error.code === 'string'

/** Rows as aligned columns under their headings. */
export function columns(
  headings: readonly string[],
  rows: readonly (readonly (string | number | null | undefined)[])[],
): string[] {
  const all = [headings, ...rows.map((row) => row.map((cell) => String(cell ?? '-')))]
  const widths = headings.map((_, column) =>
    Math.max(...all.map((row) => (row[column] ?? '').length)),
  )
  return all.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}
