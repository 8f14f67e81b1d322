import type { Clock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { rounds } from '#base/rounds.ts'
import {
  raiseRevision,
  type StandingOrder,
  standingOrders,
} from '#control/resources/volume-limits.ts'
import type { AgentRegistry } from '#control/sites/agents.ts'
import type { SiteClient } from '#control/sites/client.ts'
import type { Store } from '#control/store/store.ts'
import { LIMITS_MAX, type VolumeLimit } from '#wire/site/commands.ts'

/* Brings the limits of volumes to their sites.
 *
 * The limit of a volume follows from its type and size, so nobody needs to remember to set it: a new volume, the other side of a pair, a volume
 * that grew, a type that got another limit are all found by comparing what should be with what was ordered last. Orders are numbered, and
 * repeated until their site has taken them. Every FULL_EVERY_MS all of them are repeated, those of volumes without a limit included: that finds
 * what a site forgot with a rebuilt copy, and what a control plane forgot with a restored database.
 *
 * A site that is not heard keeps the limits that it has, and enforces them; it gets the rest when it is back.
 */

export interface LimitSync {
  start(): void
  /** Resolves when the round under way has ended. */
  stop(): Promise<void>
  /** One round now. */
  round(): Promise<void>
}

const EVERY_MS = 1_000
const FULL_EVERY_MS = 60_000
const COMMAND_MS = 10_000

export function createLimitSync(options: {
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  readonly agents: AgentRegistry
  readonly sites: SiteClient
  /** Pause between two rounds. Default 1 s. */
  readonly everyMs?: number
}): LimitSync {
  const { store, clock, log, agents, sites, everyMs = EVERY_MS } = options
  /** Revision that its site has confirmed, by volume. */
  let taken = new Map<string, number>()
  let fullMs = -Infinity
  const looks = rounds(clock, everyMs, round, (error) => {
    log.error({ err: error }, 'limits of volumes were not brought to their sites')
  })

  async function round(): Promise<void> {
    const nowMs = clock.bootMs()
    const all = nowMs - fullMs >= FULL_EVERY_MS
    if (all) {
      fullMs = nowMs
      taken = new Map()
    }
    const orders = await standingOrders(store, { all, nowMs: clock.wallMs() })
    const open = orders.filter(({ volume, revision }) => taken.get(volume) !== revision)
    for (const site of new Set(open.map(({ az }) => az))) {
      if (!agents.heard(site)) continue
      const ofSite = open.filter(({ az }) => az === site)
      for (let at = 0; at < ofSite.length && !looks.stopping; at += LIMITS_MAX) {
        await send(site, ofSite.slice(at, at + LIMITS_MAX))
      }
    }
  }

  async function send(site: string, orders: readonly StandingOrder[]): Promise<void> {
    try {
      const { unknown, newer } = await sites.command(
        site,
        'volume.limit',
        { limits: orders.map(wireLimit) },
        { timeoutMs: COMMAND_MS },
      )
      const not = new Set([...unknown, ...newer.map(({ volume }) => volume)])
      for (const { volume, revision } of orders) if (!not.has(volume)) taken.set(volume, revision)
      if (newer.length === 0) return
      log.warn({ site, volumes: newer.length }, 'a site has later limits than are known here')
      await store.write(async (tx) => {
        for (const { volume, revision } of newer) {
          await raiseRevision(tx, volume, revision, clock.wallMs())
        }
      })
    } catch (error) {
      if (!isFault(error)) throw error
      log.info({ err: error, site }, 'limits of volumes are sent again later')
    }
  }

  return {
    start: () => looks.start(),
    stop: () => looks.stop(),
    round,
  }
}

export const wireLimit = (order: StandingOrder): VolumeLimit => ({
  volume: order.volume,
  revision: order.revision,
  iops: order.iops,
  bytes_per_second: order.bytes_per_second,
  read_only: order.read_only === 1,
})
