/* Who waits for what was written to one file to be durable, and the fdatasyncs that they share: while one runs, all newcomers wait for the next one
 * together.
 *
 *     flush A ──► [ sync 1 ─────────────► ] ──► A
 *        flush B, C come here ──► wait ──► [ sync 2 ─────► ] ──► B, C
 *
 * B may not use sync 1, which may have passed B's pages already.
 *
 * A flush that is expected may have its sync before it comes. That one counts for the first flush that finds nothing changed since it began, and
 * for no other:
 *
 *     write ─► ahead ──► [ sync ──────► ]         flush ──► answered at once
 *     write ─► ahead ──► [ sync ──────► ] write   flush ──► a sync of its own
 */
export class SharedSyncs {
  readonly #sync: () => Promise<void>
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined
  /** Begun for a flush that has not come; nothing was changed since. */
  #ahead: Promise<void> | undefined

  /** `sync` makes durable what was written before it was called. After one that failed every other one must fail too. */
  constructor(sync: () => Promise<void>) {
    this.#sync = sync
  }

  /** Call in the step that changes the file; for a change that takes longer than a step when it begins and when it has ended. */
  changed(): void {
    this.#ahead = undefined
  }

  /** A flush is expected: it may find what has been written until now durable. Nothing while a sync runs. */
  ahead(): void {
    if (this.#running !== undefined) return
    const sync = this.#begin()
    this.#ahead = sync
    // Whoever flushes hears of it.
    sync.catch(() => undefined)
  }

  /** Everything written before this call is durable when it resolves. */
  flush(): Promise<void> {
    const ahead = this.#ahead
    if (ahead !== undefined) {
      this.#ahead = undefined
      return ahead
    }
    if (this.#running === undefined) return this.#begin()
    // A sync that failed makes the next one fail: waiting for it whatever its outcome is right.
    this.#next ??= this.#running.then(noop, noop).then(() => {
      this.#next = undefined
      return this.flush()
    })
    return this.#next
  }

  #begin(): Promise<void> {
    this.#running = this.#sync().finally(() => (this.#running = undefined))
    return this.#running
  }
}

const noop = () => {}
