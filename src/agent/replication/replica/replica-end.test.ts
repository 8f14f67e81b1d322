import assert from 'node:assert/strict'
import { once } from 'node:events'
import { describe, test, type TestContext } from 'node:test'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { decodeChanges } from '#wire/link/changes.ts'
import { ACK, ACK_BYTES, ack, FRAME, frame, STATUS } from '#wire/link/frame.ts'
import {
  decodeMessage,
  encodeMessage,
  FEATURES_HERE,
  type Hello,
  type LinkMessage,
} from '#wire/link/messages.ts'
import type { ChangeMapTrust } from '../copy/change-map.ts'
import { REGION_BYTES } from '../copy/regions.ts'
import { MemoryVolume } from '../data-path.test-kit.ts'
import { AckGate } from '../session/ack-gate.ts'
import { Contact, Silence } from '../session/contact.ts'
import type { SessionCore } from '../core.ts'
import type { Greeting } from '../session/hello.ts'
import { Lease } from '../session/lease.ts'
import { type AcceptedLink, listenForLinks } from '../link.ts'
import type { LinkSilence } from '../session/link-silence.ts'
import type { Members, OpenMember } from '../members.ts'
import { ReplicaEnd } from './replica-end.ts'
import type { RunFile } from '../run-file.ts'
import { type SessionEvent, unopened } from '../session/session.ts'

const security = { kind: 'keyed', secret: Buffer.from('the secret') } as const
const record = {
  ...unopened('s').record,
  epoch: 3,
  state: 'in_sync',
  writer: 'az1',
  replica: 'az2',
} as const
const helloOf = (site: string): Hello => ({
  kind: 'hello',
  features: FEATURES_HERE,
  site,
  record,
  role: site === 'az1' ? 'writer' : 'replica',
  clean: true,
  divergent: false,
  consistent: true,
  applied: 0,
  baseEpoch: 3,
  unfit: null,
  bootId: 'boot',
  runId: 'run',
  members: [],
})

interface World {
  readonly end: ReplicaEnd
  /** Resolves with the next link that the replica has opened. */
  readonly next: () => Promise<AcceptedLink>
  /** When links came, ms. */
  readonly times: readonly number[]
  readonly lines: readonly string[]
  readonly gate: AckGate
}

/** A replica whose session takes every link, with a writer that does what the test wants. */
async function world(
  t: TestContext,
  members: Partial<Members> = {},
  keptSettled: () => Promise<void> = () => Promise.resolve(),
): Promise<World> {
  const lines: string[] = []
  const plain = createLog('test', 'silent')
  const note = (fields: unknown, text?: string) => void lines.push(text ?? String(fields))
  const log = { info: note, error: note, debug: () => undefined } as unknown as typeof plain
  const waiting: ((link: AcceptedLink) => void)[] = []
  const links: AcceptedLink[] = []
  const times: number[] = []
  const listener = await listenForLinks({
    host: '127.0.0.1',
    port: 0,
    security,
    log: plain,
    answer: () => helloOf('az1'),
    accepted: (link) => {
      times.push(performance.now())
      const wake = waiting.shift()
      if (wake === undefined) links.push(link)
      else wake(link)
    },
  })
  const session = {
    role: 'replica',
    stored: { ...unopened('s'), record },
    linked: true,
    applies: true,
    gate: new AckGate(new Lease(), new Contact(1_000)),
    silence: new Silence(1_000, 0),
  }
  const core = {
    session,
    clock: systemClock,
    log,
    closing: false,
    now: () => systemClock.bootMs(),
    post: () => undefined,
    handle: (_event: SessionEvent) => Promise.resolve(),
    inTurn: (work: () => Promise<void>) => work(),
    process: (_event: SessionEvent) => Promise.resolve(),
    fatal: (error: unknown) => lines.push(String(error)),
  } as unknown as SessionCore
  const end = new ReplicaEnd({
    core,
    members: {
      peerLink: `127.0.0.1:${listener.address.port}`,
      blank: () => Promise.resolve(new Set()),
      values: () => [],
      get: () => undefined,
      wasRemoved: () => false,
      ...members,
    } as unknown as Members,
    greeting: { hello: () => helloOf('az2') } as unknown as Greeting,
    run: { store: () => undefined } as unknown as RunFile,
    security,
    silenceOf: () => ({ end: () => undefined }) as unknown as LinkSilence,
    freeBytes: () => Promise.resolve(0),
    keptSettled,
  })
  t.after(async () => {
    end.stopDialling()
    end.hangUp(null)
    await listener.close()
  })
  const next = (): Promise<AcceptedLink> => {
    const link = links.shift()
    return link === undefined ? new Promise((wake) => waiting.push(wake)) : Promise.resolve(link)
  }
  return { end, next, times, lines, gate: session.gate }
}

describe("the replica's end of the link", () => {
  test('dials again after the session has dropped the link by itself', async (t) => {
    const { end, next } = await world(t)
    end.startDialling()
    const { socket } = await next()
    socket.resume()
    // It answers: the session has dealt with link_up, and the receiver takes frames.
    socket.write(frame(FRAME.HEARTBEAT, 0, 0, 1, 0, 0))
    await once(socket, 'data')
    end.drop(null)
    await next()
  })

  test('slows down, and says it once, while its links end at once', async (t) => {
    const { end, next, times, lines } = await world(t)
    end.startDialling()
    for (let count = 0; count < 5; count++) {
      const { socket } = await next()
      socket.write(frame(FRAME.WRITE, 0, 9, 1, 0, 8, Buffer.alloc(8)))
      const [answer] = (await once(socket, 'data')) as [Buffer]
      assert.deepEqual(answer, ack(ACK.APPLIED, STATUS.UNKNOWN_MEMBER, 0))
      socket.destroy()
    }
    const gaps = times.slice(1).map((time, index) => time - (times[index] as number))
    for (const [index, gap] of gaps.entries()) assert.ok(gap >= 50 * 2 ** index - 5, gaps.join(' '))
    assert.deepEqual(lines, ['writes of the other site cannot be kept here'])
  })

  test('looks at nothing behind the beginning of a copy before its own is kept', async (t) => {
    const { volume, member } = memberOf()
    let kept = () => {}
    const settled = new Promise<void>((resolve) => (kept = resolve))
    const { end, next, gate } = await world(t, { get: () => member }, () => settled)
    end.startDialling()
    const { socket } = await next()
    const answered = once(socket, 'data')
    const block = frame(FRAME.WRITE, 0, 1, 1, 0, 512, Buffer.alloc(512, 7))
    socket.write(Buffer.concat([message({ kind: 'copy_begin', sequence: 0 }), block]))
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual([gate.sequence, volume.bytes[0]], [0, 0])
    kept()
    assert.deepEqual((await answered)[0], ack(ACK.APPLIED, STATUS.OK, 1))
    assert.equal(volume.bytes[0], 7)
  })

  test('calls a first copy complete when it is durable, and on record', async (t) => {
    const { volume, member } = memberOf()
    const order: string[] = []
    volume.flush = async () => {
      await new Promise((resolve) => setImmediate(resolve))
      order.push('durable')
    }
    const markJoined = async (indexes: readonly number[]) => {
      await new Promise((resolve) => setImmediate(resolve))
      order.push(`joined ${indexes.join()}`)
    }
    const { end, next } = await world(t, { get: () => member, markJoined })
    end.startDialling()
    const { socket } = await next()
    const answered = once(socket, 'data')
    socket.write(message({ kind: 'join', member: 1 }))
    const [answer] = (await answered) as [Buffer]
    assert.deepEqual(order, ['durable', 'joined 1'])
    assert.deepEqual(decodeMessage(answer.subarray(ACK_BYTES)), { kind: 'joined', member: 1 })
  })

  for (const [trust, expected] of [
    ['exact', { compare: [1], send: [3, 64] }],
    ['other_boot', { compare: [1], send: [] }],
    ['damaged', null],
  ] as const) {
    test(`tells what it has changed itself: a map that is ${trust}`, async (t) => {
      const { member } = memberOf(trust)
      const { end, next } = await world(t, { get: () => member })
      end.startDialling()
      const { socket } = await next()
      const answered = once(socket, 'data')
      socket.write(frame(FRAME.CHANGES, 0, 1, 5, 0, 2))
      const [answer] = (await answered) as [Buffer]
      const found = decodeChanges(answer.subarray(ACK_BYTES), 2)
      const bits = (bytes: Uint8Array) =>
        Array.from({ length: bytes.length * 8 }, (_, bit) => bit).filter(
          (bit) => (((bytes[bit >> 3] as number) >> (bit & 7)) & 1) === 1,
        )
      assert.deepEqual(found && { compare: bits(found.compare), send: bits(found.send) }, expected)
    })
  }
})

/** A member of two regions, whose change map names blocks 3 and 64 and is asked about the base of `record`. */
function memberOf(trust: ChangeMapTrust = 'exact') {
  const volume = new MemoryVolume(2 * REGION_BYTES)
  const marks = Buffer.alloc(2 * 8)
  marks[0] = 1 << 3
  marks[8] = 1
  const member = {
    index: 1,
    volume,
    intent: { regions: 2, has: (region: number) => region === 1 },
    changes: {
      trust: (base: number) => (base === unopened('s').baseEpoch ? trust : 'damaged'),
      slice: (first: number, count: number) => marks.subarray(first / 8, (first + count) / 8),
    },
  } as unknown as OpenMember
  return { volume, member }
}

function message(one: LinkMessage): Buffer {
  const body = encodeMessage(one)
  return frame(FRAME.MESSAGE, 0, 0, 0, 0, body.length, body)
}
