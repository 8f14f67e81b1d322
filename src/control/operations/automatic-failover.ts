import type { Clock } from '#base/clock.ts'
import { Fault, fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { rounds } from '#base/rounds.ts'
import {
  addVerdict,
  enabledAutomatics,
  updateAutomatic,
  verdictText,
} from '#control/resources/automatic-failovers.ts'
import { drAz, productionAz, readGroup } from '#control/resources/groups.ts'
import { readOwnership } from '#control/resources/sync.ts'
import { trusted } from '#control/sites/history.ts'
import type { Witness } from '#control/sites/witness.ts'
import { readMeta } from '#control/store/meta.ts'
import type { AutomaticFailoverRow } from '#control/store/tables/recovery.ts'
import type { ProtectionGroupRow } from '#control/store/tables/resources.ts'
import {
  type AutomaticDecision,
  type AutomaticFacts,
  decideAutomatic,
} from '#domain/automatic-failover.ts'
import { decideGroup, type GroupFacts } from '#domain/protection-group.ts'
import { requestGroupCommand } from './definitions/protection/group-requests.ts'
import { preflight } from './definitions/recovery/preflight.ts'
import type { RequestServices } from './definitions/requests.ts'
import { groupFacts } from './definitions/protection/sync-views.ts'
import { createSilence } from './silence.ts'

/* Looks every second at the groups that may fail over by themselves, and lets those do it for which every fact speaks
 * (src/domain/automatic-failover.ts). It is the witness that decides: this looks at its records and at what the agents tell it, and the
 * failover is the ordinary one without force, which the witness judges again.
 *
 * SILENCE of production is counted by this process itself, see silence.ts.
 *
 * SEVERAL CONTROL PLANES may do this over one database. The group's row moves to failing-over, and the row of the automatism from
 * armed to not armed, in the transaction that stores the operation; whoever comes second finds both changed and does nothing.
 *
 * ONCE. Whatever becomes of the failover, the next one needs an operator who has armed it again.
 */

export const AUTOMATIC_CLAIMED = fault({
  code: 'AUTOMATIC_CLAIMED',
  retry: 'never',
  text: 'What the automatic failover was decided on has changed in this moment.',
  hint: 'Nothing is to be done: it looks again in a second.',
})

export interface AutomaticFailoverOptions {
  readonly services: RequestServices & { readonly witness: Witness }
  readonly clock: Clock
  readonly log: Log
  /** Of this host's readings of CLOCK_BOOTTIME. */
  readonly leaseMs: number
  readonly driftMs: number
  /** Pause between two looks. Default 1 s. */
  readonly everyMs?: number
}

export interface AutomaticFailover {
  start(): void
  /** Resolves when the look under way has ended. */
  stop(): Promise<void>
  /** One look now; for tests. */
  round(): Promise<void>
}

const EVERY_MS = 1_000
/** Groups whose production is heard are looked at less often when there are many: for each of them this long. */
const HEARD_MS_EACH = 10
const HEARD_MS_MAX = 10_000
/** The shortest silence that proves anything: every lease has ended, and the last report is as old as one may be. */
export const silenceFloorMs = (times: {
  readonly leaseMs: number
  readonly driftMs: number
  readonly agentSilenceMs: number
}): number => times.leaseMs + times.driftMs + times.agentSilenceMs

export function createAutomaticFailover(options: AutomaticFailoverOptions): AutomaticFailover {
  const { services, clock, log, leaseMs, driftMs, everyMs = EVERY_MS } = options
  const { store, agents, witness, agentSilenceMs } = services
  const floorMs = silenceFloorMs({ leaseMs, driftMs, agentSilenceMs })
  const silence = createSilence({ agents, clock, everyMs })
  /** By group: CLOCK_BOOTTIME of the last look. */
  const lookedAt = new Map<string, number>()
  let cancelListening = () => {}
  const looks = rounds(clock, everyMs, round, (error) => {
    log.error({ err: error }, 'a look at the groups that fail over by themselves failed')
  })

  /** Beside the looks, which take as long as the database does. */
  function keepListening(): void {
    if (looks.stopping) return
    silence.listen()
    cancelListening = clock.after(everyMs, keepListening)
  }

  async function round(): Promise<void> {
    silence.listen()
    const rows = await enabledAutomatics(store.db)
    const enabled = new Set(rows.map((row) => row.group_id))
    for (const id of lookedAt.keys()) if (!enabled.has(id)) lookedAt.delete(id)
    const heardEveryMs = Math.min(HEARD_MS_MAX, rows.length * HEARD_MS_EACH)
    for (const row of rows) {
      if (looks.stopping) return
      try {
        await look(row, heardEveryMs)
      } catch (error) {
        if (!isFault(error)) throw error
        log.info({ err: error, group: row.group_id }, 'an automatic failover was not judged')
      }
    }
  }

  async function look(row: AutomaticFailoverRow, heardEveryMs: number): Promise<void> {
    const group = await readGroup(store.db, row.group_id)
    if (group === undefined) return
    const sinceMs = clock.bootMs() - (lookedAt.get(row.group_id) ?? Number.NEGATIVE_INFINITY)
    if (agents.heard(productionAz(group)) && sinceMs < heardEveryMs) return
    lookedAt.set(row.group_id, clock.bootMs())
    const facts = await factsOf(row, group)
    const decision = decideAutomatic(facts)
    if (decision.verdict === 'acts') return await act(row, group, decision, facts)
    if (verdictText(decision) === row.verdict) return
    await store.write(async (tx) => {
      const now = clock.wallMs()
      if (!(await updateAutomatic(tx, row, { verdict: verdictText(decision) }))) return
      await addVerdict(tx, group.id, decision, facts, now, null)
    })
    const { verdict, reasons } = decision
    log.info({ group: group.id, verdict, reasons }, 'automatic failover')
  }

  async function factsOf(
    row: AutomaticFailoverRow,
    group: ProtectionGroupRow,
  ): Promise<AutomaticFacts> {
    const { facts, under } = await store.read(async (db) => ({
      ...(await groupFacts(db, services, group)),
      under: await db
        .selectFrom('operations')
        .select('id')
        .where('resource_id', '=', group.id)
        .where('resource_type', '=', 'protection-group')
        .where('status', 'in', ['pending', 'running'])
        .executeTakeFirst(),
    }))
    const record = await witness.record(group.id)
    const stored = (await readOwnership(store.db, [group.id])).get(group.id)
    const { history_mark: mark } = await readMeta(store.db)
    const production = productionAz(group)
    const judged = await preflight(services, group, { kind: 'failover', force: false })
    return {
      armed: row.armed === 1,
      held: row.hold !== null,
      groupAccepts: accepts(facts),
      busy: under !== undefined || facts.busyPairs > 0 || facts.busyInstances > 0,
      record:
        record === null || stored === undefined || record.epoch === 0
          ? null
          : {
              state: record.state,
              mode: record.mode,
              writerIsProduction: record.writer === production,
              trusted: trusted(stored, mark),
              leaseLeftMs: leaseLeft(record.lease),
            },
      copied: facts.usablePairs === facts.pairs && judged.leavesBehind.length === 0,
      productionHeard: agents.heard(production),
      silentMs: silence.ofSite(production),
      silenceNeededMs: Math.max(row.silence_ms, floorMs),
      dr: drSide(group, record?.epoch ?? 0),
    }
  }

  /** In sync nobody has one; whatever is recorded all the same is waited for. */
  function leaseLeft(lease: { readonly endsBootMs: number } | null): number {
    return lease === null ? 0 : Math.max(0, Math.ceil(lease.endsBootMs + driftMs - clock.bootMs()))
  }

  function drSide(group: ProtectionGroupRow, epoch: number): AutomaticFacts['dr'] {
    const site = drAz(group)
    const status = agents.heard(site) ? agents.session(group.id, site)?.status : undefined
    if (status === undefined) return null
    return {
      sameEpoch: status.epoch === epoch,
      replica: status.role === 'replica',
      consistent: status.consistent && status.kept === null,
      unfit: status.unfit !== null,
      // Its own durable note says since when it has been out of touch; beats of a busy process are no silence.
      hearsProduction:
        status.link === 'up' || status.out_of_touch_ms === null || status.peer_busy === true,
    }
  }

  async function act(
    row: AutomaticFailoverRow,
    group: ProtectionGroupRow,
    decision: AutomaticDecision,
    facts: AutomaticFacts,
  ): Promise<void> {
    const command = { kind: 'failover', force: false } as const
    try {
      const outcome = await requestGroupCommand(
        services,
        group.project,
        group.id,
        command,
        undefined,
        async (tx, operation) => {
          // A report that came since the look is news.
          if (agents.heard(productionAz(group))) {
            throw new Fault(AUTOMATIC_CLAIMED, `production of group ${group.id} is heard again`)
          }
          const now = clock.wallMs()
          const change = {
            armed: 0,
            acted_at: now,
            operation,
            verdict: verdictText(decision),
          } as const
          if (!(await updateAutomatic(tx, row, change))) {
            throw new Fault(AUTOMATIC_CLAIMED, `failing group ${group.id} over`)
          }
          await addVerdict(tx, group.id, decision, facts, now, operation)
        },
      )
      if (outcome.ok) {
        const { operation } = outcome
        log.warn({ group: group.id, operation, facts }, 'the group fails over by itself')
      } else {
        log.info({ group: group.id, refusal: outcome.refusal }, 'the group changed in this moment')
      }
    } catch (error) {
      if (!isFault(error, AUTOMATIC_CLAIMED)) throw error
      log.info({ err: error, group: group.id }, 'the group does not fail over by itself')
    }
  }

  return {
    start() {
      keepListening()
      looks.start()
    },
    async stop() {
      const stopped = looks.stop()
      cancelListening()
      await stopped
    },
    round,
  }
}

/** As if production were silent: whether it is, is judged apart. */
const accepts = (facts: GroupFacts): boolean =>
  facts.status === 'protected' &&
  decideGroup({ ...facts, sync: 'production_silent' }, { kind: 'failover', force: false }).ok
