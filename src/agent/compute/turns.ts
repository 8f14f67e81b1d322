/** Everything that happens to one guest, one after the other; waiting that is hurried ends early. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve()
  #waiting: AbortController | undefined

  /** Settles as `work` does, which begins when everything before it has ended, however. */
  take<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work)
    this.#last = turn.catch(() => undefined) // told to the one who asked; the next one's turn comes all the same
    return turn
  }

  /** Settles when what has been asked for so far has ended. */
  async idle(): Promise<void> {
    await this.#last
  }

  /** Waiting that `hurry` cuts short; within a turn, so there is one at a time. */
  async patiently(work: (hurry: AbortSignal) => Promise<void>): Promise<void> {
    this.#waiting = new AbortController()
    try {
      await work(this.#waiting.signal)
    } finally {
      this.#waiting = undefined
    }
  }

  /** Concerns what waits now, not what comes to wait later. */
  hurry(): void {
    this.#waiting?.abort()
  }
}
