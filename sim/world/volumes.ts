import type { OwnershipRecord } from '#wire/site/witness.ts'
import type { Site } from './site.ts'
import type { AgentView } from './views.ts'

/* The volumes of a site and the sessions that have them, one after the other: taken when one begins, its own while it lasts, and in between served plainly or
 * refused, as the control plane says.
 */

export class Volumes {
  readonly #agent: AgentView

  constructor(agent: AgentView) {
    this.#agent = agent
  }

  /** As `SessionCommands` finds it where a session is over and `record` comes: clients may have written since. */
  writtenPlainly(record: OwnershipRecord): boolean {
    const { session, site } = this.#agent
    const { epoch } = session.stored.record
    const newer = session.role === 'none' && epoch > 0 && record.epoch > epoch
    return newer && record.writer !== site.name && !site.taken && site.plain === 'standalone'
  }

  /** As commands.ts: a session that has begun here has its volumes. What the one that ended has left counts as joined again. */
  take(record: OwnershipRecord, force: boolean): boolean {
    const { session, site } = this.#agent
    const { epoch } = session.stored.record
    const late = epoch > 0 && record.epoch <= epoch
    const fences = epoch > 0 && record.writer !== site.name
    const unknown = record.state === 'failed_over' && !fences && !force
    if (session.role !== 'none' || late || unknown) return false
    site.taken = true
    if (!site.left) return false
    site.left = false
    site.joined = true
    return true
  }

  /** As volume-commands.ts: refuses before that is recorded, serves after. Whoever is given the volumes changes what a session has left in them. */
  serve(serving: Site['plain'], answer: (code: string | null) => void): void {
    const { clients, process, site, world } = this.#agent
    if (site.taken) return answer('VOLUME_BUSY')
    if (site.plain === serving) return answer(null)
    if (serving === 'standby') {
      clients.refuse()
      this.#agent.began = false
    }
    process.after(world.syncMs(site), () => {
      if (site.taken) return answer('VOLUME_BUSY')
      site.plain = serving
      site.left = false
      if (serving === 'standalone') clients.servePlainly()
      world.coverage.count(`volumes ${serving}`)
      answer(null)
    })
  }

  /** As rebuild.ts: the link goes, the copy counts as never made, then it is replaced. It joins by a first copy. */
  rebuild(epoch: number, answer: (code: string | null) => void): void {
    const agent = this.#agent
    const { site, world } = agent
    const ready = () =>
      agent.session.role === 'replica' && epoch >= agent.session.stored.record.epoch && site.failed
    if (!ready()) return answer('WRONG_STATE')
    agent.link.lose()
    agent.feed(
      () => ({ kind: 'link_down', now: agent.now() }),
      () => {
        if (!ready()) return answer('WRONG_STATE')
        world.coverage.count('copy rebuilt')
        world.observer.rebuilds(site)
        // One that was let in meanwhile has said that the copy is failed.
        agent.link.lose()
        answer(null)
      },
    )
  }
}
