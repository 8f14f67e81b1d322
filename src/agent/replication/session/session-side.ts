import assert from 'node:assert/strict'
import type { OwnershipRecord, WitnessAnswer } from '#wire/site/witness.ts'
import {
  type PeerHello,
  Session,
  type SessionEffect,
  type SessionEvent,
  type StoredSession,
  unopened,
} from './session.ts'

/* For tests of a session: one side of it, and what the tests have in common. Helpers only; production code never imports it. */

export const SETTINGS = { session: 's', site: 'az1', silenceMs: 4_000, renewMs: 2_000 }
export const LEASE_MS = 8_000

export const record = (
  epoch: number,
  state: OwnershipRecord['state'],
  writer = 'az1',
): OwnershipRecord => ({
  session: 's',
  epoch,
  state,
  writer,
  replica: writer === 'az1' ? 'az2' : 'az1',
  mode: 'witness',
  preferred: 'az1',
})

export const stored = (change: Partial<StoredSession>): StoredSession => ({
  ...unopened('s'),
  ...change,
})

export const kinds = (effects: readonly SessionEffect[]): string[] =>
  effects.map(({ kind }) => kind)

export function find<K extends SessionEffect['kind']>(
  effects: readonly SessionEffect[],
  kind: K,
): Extract<SessionEffect, { kind: K }> {
  const found = effects.find((effect) => effect.kind === kind)
  assert.ok(found !== undefined, `${kind} among ${kinds(effects).join(', ')}`)
  return found as Extract<SessionEffect, { kind: K }>
}

export const replicaHello = (of: OwnershipRecord, change: Partial<PeerHello> = {}): PeerHello => ({
  record: of,
  role: 'replica',
  clean: true,
  divergent: false,
  consistent: true,
  applied: 0,
  baseEpoch: 0,
  unfit: null,
  ...change,
})

/** One side with its answers from the witness. */
export class Side {
  readonly session: Session
  now = 1_000

  constructor(from: StoredSession = unopened('s'), known: number | null = null, site = 'az1') {
    this.session = new Session({ ...SETTINGS, site }, from, known, this.now)
  }

  handle(event: object): readonly SessionEffect[] {
    return this.session.handle({ now: this.now, ...event } as SessionEvent)
  }

  open(of: OwnershipRecord, force = false): readonly SessionEffect[] {
    return this.handle({ kind: 'open', record: of, force, joined: true })
  }

  answer(
    effects: readonly SessionEffect[],
    of: OwnershipRecord,
    ok = true,
  ): readonly SessionEffect[] {
    const { ask } = find(effects, 'ask')
    const lease_ms = ask.kind === 'renew' ? LEASE_MS : null
    const answer: WitnessAnswer = ok
      ? { ok, record: of, lease_ms }
      : { ok, refusal: 'STALE_EPOCH', record: of, retry_after_ms: null }
    return this.handle({ kind: 'witness', ask, sentMs: this.now, answer })
  }
}

/** A writer in sync under epoch 2, linked, with contact. */
export function following(): Side {
  const side = new Side()
  side.answer(side.open(record(1, 'resyncing')), record(1, 'resyncing'))
  side.handle({ kind: 'link_up', hello: replicaHello(record(1, 'resyncing')) })
  side.handle({ kind: 'copied', members: [1] })
  const risen = side.handle({ kind: 'message', message: { kind: 'risen', epoch: 2 } })
  side.answer(risen, record(2, 'in_sync'))
  side.handle({ kind: 'message', message: { kind: 'epoch_accepted', epoch: 2 } })
  side.session.contact.heard(side.now)
  assert.equal(side.session.phase, 'following')
  return side
}

export const ABLE = { soloDelayMs: 1_000, keepsCopies: true }

/** As `Side`, with a shell that can carry out everything. */
export class AbleSide extends Side {
  override readonly session: Session

  constructor(
    from: StoredSession = unopened('s'),
    known: number | null = null,
    site = 'az1',
    now = 1_000,
  ) {
    super(from, known, site)
    this.now = now
    this.session = new Session({ ...SETTINGS, ...ABLE, site }, from, known, now)
  }

  tick(byMs = 400): readonly SessionEffect[] {
    this.now += byMs
    return this.handle({ kind: 'tick', wallMs: 1_000_000 + this.now })
  }

  /** No answer to the question that is open now, for `ms`. */
  unreachable(effects: readonly SessionEffect[], ms: number): readonly SessionEffect[] {
    const end = this.now + ms
    let open = effects
    const all: SessionEffect[] = []
    for (;;) {
      const asked = open.find((effect) => effect.kind === 'ask')
      if (asked?.kind === 'ask') {
        const { ask } = asked
        all.push(...this.handle({ kind: 'witness', ask, sentMs: this.now, answer: null }))
      }
      if (this.now >= end) return all
      open = this.tick()
      all.push(...open)
    }
  }
}

export type Change = Partial<StoredSession>
export const static1 = (of: OwnershipRecord): OwnershipRecord => ({
  ...of,
  mode: 'static-priority',
})

/** A writer in sync under epoch 2 whose process was there when it rose. */
export function inStep(change: Change = {}, arbitrated = (of: OwnershipRecord) => of): AbleSide {
  const before = { record: arbitrated(record(2, 'in_sync')), consistent: true, base: true }
  const side = new AbleSide(stored({ ...before, baseEpoch: 2, clean: 10, ...change }), 10)
  side.answer(side.handle({ kind: 'start' }), before.record)
  const hello = replicaHello(side.session.stored.record, { applied: 10, baseEpoch: 2 })
  side.now += 10_000
  side.handle({ kind: 'link_up', hello, logFrom: 10 })
  assert.equal(side.session.phase, 'following')
  side.session.contact.heard(side.now)
  return side
}

/** The same, alone under solo, epoch 3, with a lease. */
export function solo(side = inStep()): AbleSide {
  const held = side.handle({ kind: 'link_down' })
  side.answer(held, side.session.stored.record)
  const asked = side.tick(1_000)
  assert.equal(find(asked, 'ask').ask.kind, 'solo')
  const adopted = side.answer(asked, { ...side.session.stored.record, epoch: 3, state: 'solo' })
  side.answer(adopted, side.session.stored.record)
  assert.equal(side.session.phase, 'alone')
  return side
}

export const soloHello = (side: AbleSide, change: Partial<PeerHello> = {}) =>
  replicaHello(side.session.stored.record, { applied: 10, baseEpoch: 2, ...change })
