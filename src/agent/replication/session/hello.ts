import { FEATURES_HERE, type Hello, type Refuse } from '#wire/link/messages.ts'
import type { SessionCore } from '../core.ts'
import type { Members } from '../members.ts'

/* What this side says of itself when a link opens, and what it answers to a replica that dials.
 *
 * Whether a peer is let in is decided by the session, at once and outside of its queue: the answer goes out before the link
 * exists, and `link_up` looks at the records again when its turn comes.
 */

export interface GreetingParts {
  readonly core: SessionCore
  readonly members: Members
  readonly bootId: string
  readonly runId: string
  /** Port of this agent's heartbeats. */
  readonly beatsPort?: number | undefined
}

export class Greeting {
  readonly #parts: GreetingParts

  constructor(parts: GreetingParts) {
    this.#parts = parts
  }

  /** `blank`: indexes of members whose volume here is one hole. */
  hello(blank: ReadonlySet<number>): Hello {
    const { core, members, bootId, runId, beatsPort } = this.#parts
    return {
      kind: 'hello',
      features: FEATURES_HERE,
      site: core.session.settings.site,
      ...core.session.hello(members.dirtyRegions > 0, hasFailed(members)),
      bootId,
      runId,
      ...(beatsPort === undefined ? {} : { beats: beatsPort }),
      members: members.stored.map(({ index, size_bytes, joined }) => ({
        index,
        sizeBytes: size_bytes,
        joined,
        blank: blank.has(index),
      })),
    }
  }

  /** The answer to a dialler. A newer record that it shows is handed to the session. */
  answer(hello: Hello): Hello | Refuse {
    const { core } = this.#parts
    const { record } = core.session.stored
    if (core.ended || core.closing || core.broken !== null) {
      return { kind: 'refuse', code: 'NOT_READY', text: 'the session is closing', record }
    }
    const refusal = core.session.refusalOf(hello.site, hello.record)
    if (refusal === null) return this.hello(new Set())
    if (refusal.code === 'OLDER_EPOCH') {
      core.post({ kind: 'peer_record', now: core.now(), record: hello.record })
    }
    return { kind: 'refuse', ...refusal, record }
  }
}

function hasFailed(members: Members): boolean {
  return [...members.values()].some(({ volume }) => volume.failed !== undefined)
}
