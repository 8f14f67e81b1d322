/** One entry of the error catalogue. `text` says what happened, `hint` what the operator does next. */
export interface FaultKind {
  readonly code: string
  /** never: repeating cannot help · later: the same call may succeed · now: repeat at once */
  readonly retry: 'never' | 'later' | 'now'
  readonly text: string
  readonly hint: string
}

/** An expected failure carrying its catalogue entry, what was being done, and to what. */
export class Fault extends Error {
  override readonly name = 'Fault'
  readonly kind: FaultKind
  readonly detail: Readonly<Record<string, unknown>>

  constructor(
    kind: FaultKind,
    doing: string,
    detail: Readonly<Record<string, unknown>> = {},
    cause?: unknown,
  ) {
    // What another program said often is a sentence already.
    const said = doing.endsWith('.') ? doing : `${doing}.`
    super(`${kind.code}: ${said} ${kind.text} ${kind.hint}`, cause === undefined ? {} : { cause })
    this.kind = kind
    this.detail = detail
  }

  get code(): string {
    return this.kind.code
  }
}

/** Defines a catalogue entry; codes are UPPER_SNAKE and unique across the project (checked by a test). */
export function fault(kind: FaultKind): FaultKind {
  return Object.freeze(kind)
}

export function isFault(error: unknown, kind?: FaultKind): error is Fault {
  return error instanceof Fault && (kind === undefined || error.kind.code === kind.code)
}
