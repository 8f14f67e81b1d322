import assert from 'node:assert/strict'
import { once } from 'node:events'
import { describe, test, type TestContext } from 'node:test'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { ACK, ack, FRAME, frame, STATUS } from '#wire/link/frame.ts'
import { FEATURES_HERE, type Hello } from '#wire/link/messages.ts'
import { AckGate } from '../session/ack-gate.ts'
import { Contact, Silence } from '../session/contact.ts'
import type { SessionCore } from '../core.ts'
import type { Greeting } from '../session/hello.ts'
import { Lease } from '../session/lease.ts'
import { type AcceptedLink, listenForLinks } from '../link.ts'
import type { LinkSilence } from '../session/link-silence.ts'
import type { Members } from '../members.ts'
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
}

/** A replica whose session takes every link, with a writer that does what the test wants. */
async function world(t: TestContext): Promise<World> {
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
    } as unknown as Members,
    greeting: { hello: () => helloOf('az2') } as unknown as Greeting,
    run: { store: () => undefined } as unknown as RunFile,
    security,
    silenceOf: () => ({ end: () => undefined }) as unknown as LinkSilence,
    freeBytes: () => Promise.resolve(0),
    keptSettled: () => Promise.resolve(),
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
  return { end, next, times, lines }
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
})
