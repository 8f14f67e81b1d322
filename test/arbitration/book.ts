/* What was written where, and what of it was answered. Every write has a number of its own, over both sites and all rows. */

const BLOCK_BYTES = 4_096
/** More than a row can write, so that a block belongs to one write of a row. */
const SLOTS = 8_192
const MARK = 'holdfast arbitration '

export interface Issue {
  readonly number: number
  readonly site: string
  readonly offset: number
  readonly block: Buffer
}

export class Book {
  #number = 0
  /** By slot. */
  readonly #answered = new Map<number, Issue>()

  issue(site: string): Issue {
    const number = ++this.#number
    const block = Buffer.alloc(BLOCK_BYTES)
    block.write(`${MARK}${number}\n`)
    return { number, site, offset: (number % SLOTS) * BLOCK_BYTES, block }
  }

  answered(issue: Issue): void {
    this.#answered.set(issue.number % SLOTS, issue)
  }

  /** Writes that were answered and are not there. A later one in the same place, answered or not, is fine. */
  async missing(read: (offset: number, bytes: number) => Promise<Buffer>): Promise<Issue[]> {
    // What is answered from here on may be too late for the reading.
    const owed = [...this.#answered]
    const data = await read(0, SLOTS * BLOCK_BYTES)
    const gone: Issue[] = []
    for (const [slot, issue] of owed) {
      const text = data.toString('latin1', slot * BLOCK_BYTES, slot * BLOCK_BYTES + 64)
      const found = text.startsWith(MARK) ? Number.parseInt(text.slice(MARK.length), 10) : 0
      if (found < issue.number) gone.push(issue)
    }
    return gone.sort((a, b) => a.number - b.number)
  }

  /** These were given up, as it was said. */
  forget(issues: readonly Issue[]): void {
    for (const { number } of issues) this.#answered.delete(number % SLOTS)
  }
}

/** `12 at az1 (403 to 414)`, for people. */
export function tellIssues(issues: readonly Issue[]): string {
  const sites = [...new Set(issues.map(({ site }) => site))]
  return sites
    .map((site) => {
      const of = issues.filter((one) => one.site === site)
      return `${of.length} answered at ${site} (${of[0]?.number} to ${of.at(-1)?.number})`
    })
    .join(', ')
}
