/**
 * Whether a site may be let alone, or whether somebody who can be heard may still say that the record is behind (decisions 0182, 0144). Pure: the
 * caller reads the clock.
 *
 * Break-glass is for the time in which nobody reaches the witness. When that is over, the sites come back in any order, and the one that was the
 * writer before asks for a lease at once. So when a site is heard again, by whatever it says, it has to wait until its peer has reported too, or
 * for `graceMs`: a peer that says nothing for so long may be dead for ever. It makes no difference why the site was not heard: this process was
 * not there, stood still, or was cut off.
 *
 * Holds one entry for each site of the region.
 */
export interface ListeningOptions {
  /** 0: nobody waits. */
  readonly graceMs: number
  /** A site that says nothing for longer was away. Not shorter than a lease: who waits after so long has none to lose. */
  readonly awayMs: number
}

interface Site {
  /** It has been heard since, without having been away. */
  sinceMs: number
  lastMs: number
  /** Its last report; what it told is in the record, or in its doubt. */
  reportedMs: number
}

export class Listening {
  readonly #options: ListeningOptions
  readonly #sites = new Map<string, Site>()

  constructor(options: ListeningOptions) {
    this.#options = options
  }

  /** `site` has reported, and its report was judged. */
  reported(site: string, nowMs: number): void {
    this.#heard(site, nowMs).reportedMs = nowMs
  }

  /** `site` asks to go on alone, or for a lease; `peer` may know better. */
  informed(site: string, peer: string, nowMs: number): boolean {
    const { graceMs } = this.#options
    if (graceMs === 0) return true
    const { sinceMs } = this.#heard(site, nowMs)
    if (nowMs >= sinceMs + graceMs) return true
    return (this.#sites.get(peer)?.reportedMs ?? Number.NEGATIVE_INFINITY) >= sinceMs
  }

  #heard(name: string, nowMs: number): Site {
    const known = this.#sites.get(name)
    if (known !== undefined && nowMs - known.lastMs <= this.#options.awayMs) {
      known.lastMs = nowMs
      return known
    }
    const site = {
      sinceMs: nowMs,
      lastMs: nowMs,
      reportedMs: known?.reportedMs ?? Number.NEGATIVE_INFINITY,
    }
    this.#sites.set(name, site)
    return site
  }
}
