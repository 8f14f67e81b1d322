import { BrokenInvariant, assert } from '#base/assert.ts'
import type { Clock } from '#base/clock.ts'
import { Fault, fault } from '#base/fault.ts'
import { newHexId } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import { toJson } from '#control/store/json.ts'
import { bit } from '#control/store/bit.ts'
import type { Store, Transaction } from '#control/store/store.ts'
import type { OperationRow } from '#control/store/tables/operations.ts'
import type { OperationKind, SubmitRequest } from './operation.ts'
import {
  beat,
  claim,
  countWaiting,
  dueOperations,
  type ForeignLease,
  findOperation,
  foreignLeases,
  forgetEnded,
  nextOrdinal,
  wakeOperations,
  wantCancel,
} from './records.ts'
import {
  CANCELLED,
  type Claim,
  type CrashPoint,
  contextOf,
  type RunnerContext,
  StopRunning,
} from './claim.ts'
import { markFailed } from './endings.ts'
import { runClaimed } from './runner.ts'
import type { OperationServices } from './services.ts'
import { listOperations, type OperationFilter, type OperationView, toView } from './views.ts'

export type { OperationView } from './views.ts'

/* The durable operation engine: finds operations that may run, claims them, and keeps the claims alive.
 *
 *     pending ─claim─► running ─► succeeded | failed | cancelled
 *        └────────────cancel──────────────────────────────┘
 *
 * Several control planes may share a database. A claim is a random token in the row and a beat that its owner raises. No
 * clocks are compared: a process judges another's claim dead when it has watched the beat stand still for a whole lease by its
 * own clock. On a database that only this process may use, every claim that is not its own is dead at once, so a restarted
 * control plane goes on without waiting.
 *
 * Limits: `concurrency` operations run at once, others wait in the table, oldest first. A parent that waits for its children
 * holds no place. When `queueMax` wait, submitting is refused with OPERATIONS_FULL and nothing of the caller's
 * transaction happens; sub-operations are never refused, their parent was let in already.
 */

export interface EngineOptions {
  readonly store: Store
  readonly clock: Clock
  readonly log: Log
  readonly services: OperationServices
  /** Every kind and version that may be found in the table. */
  readonly kinds: readonly OperationKind<never>[]
  /** 0 to 1. */
  readonly random: () => number
  /** Default 64: steps mostly wait for agents. */
  readonly concurrency?: number
  /** Default 10,000. */
  readonly queueMax?: number
  /** How long an operation is kept after its end. Default 90 days: jobs are asked for, and audits look back. */
  readonly keepEndedMs?: number
  /** How long a claim must stand still before another process takes it. Default 15 s. */
  readonly leaseMs?: number
  /** A broken belief inside a step. Default: ends the process. */
  readonly crash?: (error: unknown) => void
  /** Called at each boundary of each step; tests end the process in it. */
  readonly crashPoint?: CrashPoint
}

/** Looks for work this often, besides being told: another process may have submitted or died. */
const POLL_MS = 1_000
/** Beats per lease; three may be lost. */
const BEATS_PER_LEASE = 4
/** How long `stop` waits for running steps to notice. */
const STOP_GRACE_MS = 5_000
/** How often ended operations that are old enough are deleted, and how many families in one transaction. */
const FORGET_EVERY_MS = 600_000
const FORGET_AT_ONCE = 200

export const OPERATIONS_FULL = fault({
  code: 'OPERATIONS_FULL',
  retry: 'later',
  text: 'Too many operations wait already; nothing was changed.',
  hint: 'Repeat when some have ended. If they do not, look at the oldest running ones.',
})
export const OPERATION_NOT_CANCELLABLE = fault({
  code: 'OPERATION_NOT_CANCELLABLE',
  retry: 'later',
  text: 'The operation has ended, or its present step has to be finished once begun.',
  hint: 'Wait for its end.',
})
export const OPERATION_UNKNOWN = fault({
  code: 'OPERATION_UNKNOWN',
  retry: 'never',
  text: 'There is no such operation.',
  hint: 'Check the id.',
})

export interface OperationEngine {
  /**
   * Stores an operation in the caller's transaction, so that the domain row and the operation are one commit.
   * Returns its id, 32 hex characters. Throws OPERATIONS_FULL when too many wait.
   */
  submit<Input>(
    tx: Transaction,
    kind: OperationKind<Input>,
    request: SubmitRequest<Input>,
  ): Promise<string>
  get(id: string): Promise<OperationView | null>
  list(filter: OperationFilter): Promise<OperationView[]>
  /** When the transaction has committed, these look again whether they can go on; see `StepWaits`. */
  wake(tx: Transaction, ids: readonly string[]): Promise<void>
  /** Asks to cancel. Throws OPERATION_NOT_CANCELLABLE when the present step does not allow it or it has ended. */
  cancel(id: string): Promise<void>
  /** Resolves with the operation once it has ended. */
  waitFor(id: string, signal?: AbortSignal): Promise<OperationView>
  /** Begins to look for work. */
  start(): void
  /** Takes no more work, gives running operations back and resolves when the steps have ended or 5 s have passed. */
  stop(): Promise<void>
}

export function createEngine(options: EngineOptions): OperationEngine {
  const { store, clock, log, services, random } = options
  const concurrency = options.concurrency ?? 64
  const queueMax = options.queueMax ?? 10_000
  const leaseMs = options.leaseMs ?? 15_000
  const keepEndedMs = options.keepEndedMs ?? 90 * 24 * 3_600_000
  const crash = options.crash ?? endProcess
  const byKey = new Map(options.kinds.map((kind) => [keyOf(kind.name, kind.version), kind]))
  assert(byKey.size === options.kinds.length, 'each kind and version is registered once')

  const kindOf = ({ kind, version }: Pick<OperationRow, 'kind' | 'version'>) =>
    byKey.get(keyOf(kind, version))

  const running = new Map<string, { claim: Claim; ended: Promise<void>; beatenMs: number }>()
  const watched = new Map<string, ForeignLease & { sinceMs: number }>()
  const waiters = new Map<string, Set<() => void>>()
  const timers = new Set<() => void>()
  const upkeep = new Set<Promise<void>>()
  const reportedUnknown = new Set<string>()
  let started = false
  let stopping = false
  let looking: Promise<void> | null = null
  let lookAgain = false

  const engine: RunnerContext = {
    store,
    services,
    log,
    now: () => clock.wallMs(),
    bootMs: () => clock.bootMs(),
    random,
    crashPoint: options.crashPoint ?? (() => {}),
    submit,
    kindOf,
    changed(id) {
      for (const wake of waiters.get(id) ?? []) wake()
    },
    wake(delayMs) {
      if (delayMs <= 0) look()
      else later(delayMs, look)
    },
  }

  function later(delayMs: number, then: () => void): void {
    if (stopping) return
    const cancel = clock.after(delayMs, () => {
      timers.delete(cancel)
      then()
    })
    timers.add(cancel)
  }

  /** Looks for work now, or once more right after the look that is under way. */
  function look(): void {
    if (!started || stopping) return
    if (looking !== null) {
      lookAgain = true
      return
    }
    looking = findWork()
      .catch((error: unknown) => {
        if (error instanceof BrokenInvariant) crash(error)
        else log.error({ err: error }, 'looking for operations failed')
      })
      .finally(() => {
        looking = null
        if (lookAgain) {
          lookAgain = false
          look()
        }
      })
  }

  async function findWork(): Promise<void> {
    const free = concurrency - running.size
    if (free <= 0) return
    const dead = await deadLeases()
    const due = (db: Parameters<typeof dueOperations>[0]) =>
      dueOperations(db, [...byKey.keys()], clock.wallMs(), dead, free)
    // Most looks find nothing: those take no lock and write nothing.
    if ((await due(store.db)).length === 0) return
    const claimed = await store.write(async (tx) => {
      const list: { row: OperationRow; token: string }[] = []
      for (const { id } of await due(tx)) {
        const token = newHexId()
        await claim(tx, id, token, clock.wallMs())
        const row = await findOperation(tx, id)
        assert(row !== undefined, 'a claimed operation exists')
        list.push({ row, token })
      }
      return list
    })
    for (const { row, token } of claimed) launch(row, token)
  }

  function launch(row: OperationRow, token: string): void {
    const kind = byKey.get(keyOf(row.kind, row.version))
    assert(kind !== undefined, 'only known kinds are claimed')
    const stop = new AbortController()
    const claimed: Claim = { id: row.id, token, kind, stop, cancelStep: () => {} }
    const ended = runClaimed(engine, claimed)
      .catch(crash)
      .finally(() => {
        running.delete(token)
        look()
      })
    running.set(token, { claim: claimed, ended, beatenMs: clock.bootMs() })
  }

  /** Claims of others that may be broken now. */
  async function deadLeases(): Promise<ForeignLease[]> {
    const foreign = await foreignLeases(store.db, [...running.keys()])
    if (!store.shared) return foreign
    const nowMs = clock.bootMs()
    const present = new Set(foreign.map(({ id }) => id))
    for (const id of watched.keys()) if (!present.has(id)) watched.delete(id)
    return foreign.filter((lease) => {
      const seen = watched.get(lease.id)
      if (seen?.lease_owner === lease.lease_owner && seen.lease_beat === lease.lease_beat) {
        return nowMs - seen.sinceMs >= leaseMs
      }
      watched.set(lease.id, { ...lease, sinceMs: nowMs })
      return false
    })
  }

  async function beatAll(): Promise<void> {
    const tokens = [...running.keys()]
    if (tokens.length === 0) return
    const beforeMs = clock.bootMs()
    try {
      const rows = await store.write((tx) => beat(tx, tokens, clock.wallMs()))
      const held = new Map(rows.map((row) => [row.lease_owner, row.cancel_wanted === 1]))
      for (const token of tokens) {
        const entry = running.get(token)
        if (entry === undefined) continue
        if (held.has(token)) entry.beatenMs = beforeMs
        // Not held and still here: between its last commit and its end, or taken over; the row decides either way.
        else entry.claim.stop.abort(new StopRunning('lease-lost'))
        if (held.get(token) === true) entry.claim.cancelStep()
      }
    } catch (error) {
      log.warn({ err: error }, 'the claims on running operations could not be renewed')
      for (const { claim: held, beatenMs } of running.values()) {
        if (store.shared && clock.bootMs() - beatenMs > leaseMs) {
          held.stop.abort(new StopRunning('lease-lost'))
        }
      }
    }
  }

  async function warnOfUnknownKinds(): Promise<void> {
    const rows = await store.db
      .selectFrom('operations')
      .select(['kind', 'version'])
      .distinct()
      .where('status', 'in', ['pending', 'running'])
      .execute()
    for (const { kind, version } of rows) {
      const key = keyOf(kind, version)
      if (byKey.has(key) || reportedUnknown.has(key)) continue
      reportedUnknown.add(key)
      log.error({ kind, version }, 'operations of a kind that this release does not know wait')
    }
  }

  async function forgetOld(): Promise<void> {
    const before = clock.wallMs() - keepEndedMs
    while (!stopping) {
      const count = await store.write((tx) => forgetEnded(tx, before, FORGET_AT_ONCE))
      if (count < FORGET_AT_ONCE) return
    }
  }

  function repeat(everyMs: number, work: () => Promise<void> | void): void {
    const turn = () => {
      const done = (async () => work())()
        .catch((error: unknown) => log.error({ err: error }, 'upkeep of operations failed'))
        .finally(() => {
          upkeep.delete(done)
          later(everyMs, turn)
        })
      upkeep.add(done)
    }
    later(everyMs, turn)
  }

  async function submit<Input>(
    tx: Transaction,
    kind: OperationKind<Input>,
    request: SubmitRequest<Input>,
  ): Promise<string> {
    const key = keyOf(kind.name, kind.version)
    assert(byKey.has(key), `operation ${key} is registered`)
    let root: string | null = null
    if (request.parent === undefined) {
      if (request.admitted !== true && (await countWaiting(tx)) >= queueMax) {
        throw new Fault(OPERATIONS_FULL, `submitting ${kind.name}`, { queueMax })
      }
    } else {
      const parent = await findOperation(tx, request.parent)
      assert(parent !== undefined, 'the parent of a sub-operation exists')
      root = parent.root
    }
    const id = newHexId()
    await tx
      .insertInto('operations')
      .values({
        id,
        ordinal: await nextOrdinal(tx),
        kind: kind.name,
        version: kind.version,
        project: request.project,
        resource_type: request.resourceType,
        resource_id: request.resourceId,
        parent: request.parent ?? null,
        root: root ?? id,
        input: toJson(request.input),
        status: 'pending',
        step: 0,
        progress: 0,
        joining: bit(false),
        cancel_wanted: bit(false),
        attempts: 0,
        run_at: 0,
        error_code: null,
        fail_reason: null,
        failed_step: null,
        entities: toJson(request.entities ?? {}),
        created_at: clock.wallMs(),
        begin_at: null,
        end_at: null,
        lease_owner: null,
        lease_beat: 0,
        lease_beat_at: null,
      })
      .execute()
    store.afterCommit(tx, look)
    return id
  }

  async function get(id: string): Promise<OperationView | null> {
    const row = await findOperation(store.db, id)
    return row === undefined ? null : toView(row, kindOf(row))
  }

  /** Cancels what never began; marks the rest, if their present step allows it. Children follow their parent. */
  async function cancelIn(tx: Transaction, row: OperationRow): Promise<boolean> {
    const kind = byKey.get(keyOf(row.kind, row.version))
    const step = kind?.steps[row.step]
    if (kind === undefined || step === undefined) return false
    if (row.status === 'pending') {
      const ctx = await contextOf(engine, { token: '', kind }, row, AbortSignal.abort())
      const message = 'Cancelled before it began.'
      await markFailed(engine, tx, kind, row, ctx, { code: CANCELLED, message, step: null })
      return true
    }
    if (row.status !== 'running' || !step.cancellable || row.error_code !== null) return false
    await wantCancel(tx, row.id)
    if (row.joining === 1) {
      const children = await tx
        .selectFrom('operations')
        .selectAll()
        .where('parent', '=', row.id)
        .where('status', 'in', ['pending', 'running'])
        .execute()
      for (const child of children) await cancelIn(tx, child)
    }
    return true
  }

  return {
    submit,
    get,
    list: async (filter) =>
      (await listOperations(store.db, filter)).map((row) => toView(row, kindOf(row))),
    async wake(tx, ids) {
      if (ids.length === 0) return
      await wakeOperations(tx, ids)
      store.afterCommit(tx, look)
    },
    async cancel(id) {
      await store.write(async (tx) => {
        const row = await findOperation(tx, id)
        if (row === undefined) throw new Fault(OPERATION_UNKNOWN, `cancelling ${id}`)
        if (!(await cancelIn(tx, row))) {
          throw new Fault(OPERATION_NOT_CANCELLABLE, `cancelling ${id} (${row.status})`)
        }
        store.afterCommit(tx, () => {
          for (const { claim: held } of running.values()) {
            if (held.id === id) held.cancelStep()
          }
          look()
        })
      })
    },
    async waitFor(id, signal) {
      for (;;) {
        const view = await get(id)
        if (view === null) throw new Fault(OPERATION_UNKNOWN, `waiting for ${id}`)
        if (view.endAt !== null) return view
        await new Promise<void>((resolve, reject) => {
          if (signal?.aborted === true) return reject(signal.reason as Error)
          const set = waiters.get(id) ?? new Set()
          waiters.set(id, set)
          const done = (then: () => void) => () => {
            set.delete(wake)
            if (set.size === 0) waiters.delete(id)
            cancelTimer()
            signal?.removeEventListener('abort', abort)
            then()
          }
          const wake = done(resolve)
          const abort = done(() => reject(signal?.reason as Error))
          // Another process may run it: then nobody here is told.
          const cancelTimer = clock.after(POLL_MS / 4, wake)
          set.add(wake)
          signal?.addEventListener('abort', abort, { once: true })
        })
      }
    },
    start() {
      assert(!started, 'an engine is started once')
      started = true
      look()
      repeat(POLL_MS, look)
      repeat(leaseMs / BEATS_PER_LEASE, beatAll)
      repeat(60_000, warnOfUnknownKinds)
      repeat(FORGET_EVERY_MS, forgetOld)
    },
    async stop() {
      stopping = true
      for (const cancel of timers) cancel()
      timers.clear()
      await Promise.all([looking, ...upkeep])
      for (const { claim: held } of running.values()) held.stop.abort(new StopRunning('shutdown'))
      const all = Promise.all([...running.values()].map(({ ended }) => ended))
      await new Promise<void>((resolve) => {
        const cancel = clock.after(STOP_GRACE_MS, resolve)
        void all.then(() => {
          cancel()
          resolve()
        })
      })
    },
  }
}

const keyOf = (name: string, version: number): string => `${name}/${version}`

/** Outside every promise, so that nothing can catch it. */
function endProcess(error: unknown): void {
  queueMicrotask(() => {
    throw error
  })
}
