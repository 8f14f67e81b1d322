import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ACK, buildTcp, FIN, parseTcp, PSH, RST, type Segment, SYN } from './tcp.ts'
import { type Outcome, TcpClient } from './tcp-client.ts'

const CLIENT = 0x0a01_0001
const SERVER = 0x0a01_0002
const QUESTION = Buffer.from('GET / HTTP/1.0\r\n\r\n')

interface World {
  /** What the service answers; null: nobody listens. */
  readonly answer: Buffer | null
  readonly question?: Buffer
  readonly answerBytesMax?: number
  /** Sequence numbers of both sides. */
  readonly first?: readonly [number, number]
  /** Whether the n-th segment on its way is lost, doubled, or late by one turn. */
  readonly fate?: (n: number) => 'arrives' | 'lost' | 'doubled' | 'late'
  /** The service says nothing after it accepted. */
  readonly mute?: boolean
}

interface Result {
  readonly outcome: Outcome | undefined
  readonly tookMs: number
  readonly over: boolean
  /** What the service was asked. */
  readonly asked: string
  /** The service saw the connection end properly. */
  readonly ended: boolean
}

/** A service as any TCP stack would run it, on the other end of a wire that may lose, double and reorder. */
function play(world: World): Result {
  const { answer, question = QUESTION, answerBytesMax = 100_000, mute = false } = world
  const [clientFirst, serverFirst] = world.first ?? [1_000, 2_000]
  const client = new TcpClient(
    {
      sourcePort: 50_000,
      destinationPort: 80,
      sequence: clientFirst,
      send: question,
      answerBytesMax,
      endMs: 20_000,
    },
    0,
  )
  const content = Buffer.concat([answer ?? Buffer.alloc(0)])
  let now = 0
  let count = 0
  let expected = -1
  let acknowledged = 0 // bytes of content
  let finSeen = false
  let finAcknowledged = false
  let asked = ''
  let late: (() => void)[] = []
  const carry = (arrive: () => void): void => {
    const fate = world.fate?.(count++) ?? 'arrives'
    if (fate === 'late') late.push(arrive)
    if (fate === 'doubled') arrive()
    if (fate === 'arrives' || fate === 'doubled') arrive()
  }
  const toClient = (flags: number, sequence: number, payload = Buffer.alloc(0)): void => {
    const bytes = buildTcp(
      {
        sourcePort: 80,
        destinationPort: 50_000,
        sequence: sequence >>> 0,
        acknowledgment: expected < 0 ? (clientFirst + 1) >>> 0 : expected,
        flags,
        window: 65_535,
        payload,
      },
      SERVER,
      CLIENT,
    )
    carry(() => {
      const segment = parseTcp(bytes, SERVER, CLIENT)
      assert.ok(segment !== undefined)
      client.receive(segment, now)
      flush()
    })
  }
  const at = (bytes: number) => (serverFirst + 1 + bytes) >>> 0
  /** Everything that is not acknowledged, which is what a stack sends again in the end. */
  const serve = (): void => {
    if (mute || expected < 0) return
    if (question.length > 0 && asked.length < question.length) return
    for (let from = acknowledged; from < content.length; from += 1_000) {
      toClient(ACK | PSH, at(from), content.subarray(from, from + 1_000))
    }
    if (!finAcknowledged) toClient(ACK | FIN, at(content.length))
  }
  const toServer = (segment: Segment): void => {
    const { flags, sequence, acknowledgment, payload } = segment
    if ((flags & SYN) !== 0) {
      if (answer === null) return toClient(RST | ACK, 0)
      const begun = (sequence + 1) >>> 0
      // A late double of the first segment: the connection has gone on since.
      if (expected >= 0 && expected !== begun) return toClient(ACK, at(acknowledged))
      expected = begun
      return toClient(SYN | ACK, serverFirst)
    }
    if ((flags & RST) !== 0 || expected < 0) return
    const done = (acknowledgment - at(0)) | 0
    if (done >= 0 && done <= content.length) acknowledged = Math.max(acknowledged, done)
    if (done === content.length + 1) finAcknowledged = true
    if (sequence === expected) {
      asked += payload.toString()
      expected = (expected + payload.length) >>> 0
      if ((flags & FIN) !== 0) {
        finSeen = true
        expected = (expected + 1) >>> 0
      }
      if (payload.length > 0 || (flags & FIN) !== 0) toClient(ACK, at(acknowledged))
      if (payload.length > 0 || (flags & FIN) !== 0) serve()
    } else if (payload.length > 0 || (flags & FIN) !== 0) toClient(ACK, at(acknowledged))
  }
  const flush = (): void => {
    for (const segment of client.take()) {
      const bytes = buildTcp(segment, CLIENT, SERVER)
      const whole = parseTcp(bytes, CLIENT, SERVER)
      assert.deepEqual(whole, segment)
      carry(() => toServer(segment))
    }
  }
  flush()
  let tookMs = -1
  for (let turns = 0; turns < 500 && !client.over; turns++) {
    const arriving = late
    late = []
    for (const arrive of arriving) arrive()
    if (client.outcome !== undefined && tookMs < 0) tookMs = now
    now = Math.max(now + 1, client.nextMs)
    client.tick(now)
    flush()
    if (!client.over && turns % 2 === 1) serve()
  }
  if (tookMs < 0) tookMs = now
  return { outcome: client.outcome, tookMs, over: client.over, asked, ended: finSeen }
}

test('a question is asked once and the whole answer comes, across the end of the numbers', () => {
  const answer = Buffer.alloc(30_000, 'abcdefghijklmnopq')
  const { outcome, asked, over, ended, tookMs } = play({
    answer,
    first: [0xffff_fff0, 0xffff_f000],
  })
  assert.equal(outcome?.kind, 'answered')
  assert.ok(outcome.answer.equals(answer))
  assert.equal(asked, QUESTION.toString())
  assert.deepEqual([over, ended, tookMs], [true, true, 0])
})

test('nobody who listens is told from somebody who does, and from silence', () => {
  const nothing = Buffer.alloc(0)
  assert.equal(play({ answer: null }).outcome?.kind, 'refused')
  const accepted = play({ answer: nothing, question: nothing })
  assert.deepEqual([accepted.outcome?.kind, accepted.ended], ['accepted', true])
  assert.equal(play({ answer: nothing, fate: () => 'lost' }).outcome?.kind, 'silent')
  assert.equal(play({ answer: nothing, mute: true }).outcome?.kind, 'late')
  assert.equal(play({ answer: nothing }).outcome?.kind, 'answered')
})

test('an answer longer than is wanted ends where it is long enough', () => {
  const { outcome, over } = play({ answer: Buffer.alloc(50_000, 1), answerBytesMax: 4_100 })
  assert.deepEqual([outcome?.kind, outcome?.answer.length, over], ['answered', 4_100, true])
})

test('whatever a wire loses, doubles and delays, the answer is the right one, or the time is over', () => {
  let whole = 0
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 9_000 }),
      fc.array(fc.constantFrom('arrives', 'lost', 'doubled', 'late'), { maxLength: 60 }),
      fc.nat({ max: 0xffff_ffff }),
      (bytes, fates, first) => {
        const answer = Buffer.from(bytes)
        const result = play({
          answer,
          first: [first, (first + 7) >>> 0],
          fate: (n) => (fates[n] as 'arrives' | undefined) ?? 'arrives',
        })
        assert.equal(result.over, true)
        assert.ok(result.tookMs <= 20_000)
        if (result.outcome?.kind === 'answered') {
          assert.ok(result.outcome.answer.equals(answer))
          assert.equal(result.asked, QUESTION.toString())
          whole++
        } else assert.ok(['silent', 'late'].includes(result.outcome?.kind ?? ''))
      },
    ),
    { numRuns: 500 },
  )
  assert.ok(whole > 400, `${whole} of 500`)
})

test('no segment breaks the client, and none but the right reset ends it', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          sequence: fc.nat({ max: 0xffff_ffff }),
          acknowledgment: fc.nat({ max: 0xffff_ffff }),
          flags: fc.nat({ max: 63 }),
          length: fc.nat({ max: 40 }),
        }),
        { maxLength: 20 },
      ),
      (segments) => {
        const client = new TcpClient(
          {
            sourcePort: 1,
            destinationPort: 2,
            sequence: 5,
            send: QUESTION,
            answerBytesMax: 100,
            endMs: 1_000,
          },
          0,
        )
        for (const { length, ...rest } of segments) {
          const payload = Buffer.alloc(length)
          const segment = { sourcePort: 2, destinationPort: 1, window: 1, payload, ...rest }
          client.receive(segment, 10)
          assert.ok(client.take().length <= 3)
        }
        client.tick(10_000)
        assert.ok(client.outcome !== undefined)
        client.tick(20_000)
        assert.equal(client.over, true)
      },
    ),
  )
})

test('a segment that was damaged on the way is none', () => {
  const segment = {
    sourcePort: 1,
    destinationPort: 2,
    sequence: 3,
    acknowledgment: 4,
    flags: ACK,
    window: 5,
    payload: Buffer.from('odd'),
  }
  const bytes = buildTcp(segment, CLIENT, SERVER)
  assert.deepEqual(parseTcp(bytes, CLIENT, SERVER), segment)
  assert.equal(parseTcp(bytes, CLIENT, SERVER + 1), undefined)
  for (const [at, byte] of bytes.entries()) {
    const bent = Buffer.from(bytes)
    bent[at] = byte ^ 0x10
    assert.equal(parseTcp(bent, CLIENT, SERVER), undefined)
  }
  assert.equal(parseTcp(bytes.subarray(0, 19), CLIENT, SERVER), undefined)
})
