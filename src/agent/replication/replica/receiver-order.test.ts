import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ACK, FLAG, FRAME, FRAME_LENGTH_MAX, frame, STATUS } from '#wire/link/frame.ts'
import { encodeMessage } from '#wire/link/messages.ts'
import { checksums } from '../verify/checksums.ts'
import { BLOCK, flush, nextTurn, SIZE, until, world, write } from './receiver.test-kit.ts'

/** A message of which nobody here looks at the content. */
const message = (): Buffer => {
  const body = encodeMessage({ kind: 'catch_up', sequence: 0 })
  return frame(FRAME.MESSAGE, 0, 0, 0, 0, body.length, body)
}

/** Who waits for what never comes is to end before the whole run does. */
const LIMIT = { timeout: 60_000 }

describe('the order of frames', LIMIT, () => {
  for (const [what, seqs, applied] of [
    ['that skips one', [1, 3], 1],
    ['that begins too late', [2], 0],
    ['whose parts skip one', [1, 2, 4], 1],
  ] as const) {
    test(`${what} ends the link, and nothing behind the gap is applied`, async (t) => {
      const { volume, writer, gate, closed } = await world(t)
      const isPart = (seq: number) => seqs.length === 3 && seq === 2
      writer.write(
        Buffer.concat([...seqs.map((seq) => write(seq, isPart(seq) ? FLAG.MORE : 0)), write(9)]),
      )
      assert.match(await closed, /follows/)
      assert.equal(gate.sequence, applied)
      assert.deepEqual(volume.written, applied === 0 ? [] : [BLOCK])
    })
  }

  test('may repeat what was applied, which changes nothing', async (t) => {
    const { volume, writer, gate, answers } = await world(t)
    const again = (seq: number) =>
      frame(FRAME.WRITE, 0, 1, seq, seq * BLOCK, BLOCK, Buffer.alloc(BLOCK, 99))
    writer.write(Buffer.concat([write(1), write(2), again(1), again(2), write(3), flush(1)]))
    await until(() => answers.some(({ type }) => type === ACK.FLUSHED))
    assert.equal(gate.sequence, 3)
    assert.deepEqual(volume.written, [BLOCK, 2 * BLOCK, 3 * BLOCK])
    assert.equal(volume.bytes[BLOCK], 1)
  })

  test('is that of the parts of a write, none of which is applied before the last is there', async (t) => {
    const { volume, writer, answers, gate } = await world(t)
    const reached = (id: number) =>
      until(() => answers.some(({ number, type }) => type === ACK.FLUSHED && number === id))
    writer.write(Buffer.concat([write(1, FLAG.MORE), write(2, FLAG.MORE), flush(1)]))
    await reached(1)
    assert.deepEqual([volume.written, gate.sequence], [[], 0])
    // Other frames come into the memory where the parts arrived.
    for (let n = 0; n < 64; n++) writer.write(frame(FRAME.CHECKSUM, 0, 1, 100 + n, SIZE, BLOCK))
    writer.write(Buffer.concat([write(3), write(4), flush(2)]))
    await reached(2)
    assert.deepEqual(
      volume.written,
      [1, 2, 3, 4].map((seq) => seq * BLOCK),
    )
    for (const seq of [1, 2, 3, 4]) {
      const bytes = volume.bytes.subarray(seq * BLOCK, (seq + 1) * BLOCK)
      assert.ok(bytes.equals(Buffer.alloc(BLOCK, seq)), `part ${seq}`)
    }
    assert.equal(gate.sequence, 4)
  })
})

describe('a frame', LIMIT, () => {
  test('that the session does not want yet ends the link and is not applied', async (t) => {
    const { volume, writer, says, closed } = await world(t)
    says.applies = false
    writer.write(write(1))
    assert.match(await closed, /before it was wanted/)
    assert.deepEqual(volume.written, [])
  })

  test('that says that it is longer than frames are ends the link: nothing else of it is believed', async (t) => {
    const { volume, writer, closed } = await world(t)
    writer.write(frame(FRAME.ZERO, 0, 1, 1, 0, FRAME_LENGTH_MAX + 1))
    assert.match(await closed, /no frame/)
    assert.deepEqual(volume.written, [])
  })

  test('behind a message waits until the session has dealt with it, however much comes meanwhile', async (t) => {
    const { volume, writer, says, gate } = await world(t)
    let dealt = () => {}
    says.onMessage = () => new Promise((resolve) => (dealt = resolve))
    writer.write(Buffer.concat([write(1), message(), write(2)]))
    await until(() => gate.sequence === 1)
    writer.write(write(3))
    for (let turn = 0; turn < 20; turn++) await nextTurn()
    assert.deepEqual(volume.written, [BLOCK])
    dealt()
    await until(() => gate.sequence === 3)
  })

  test('behind one that a snapshot has to preserve something for waits with it', async (t) => {
    const { volume, writer, gate } = await world(t)
    let preserved = () => {}
    const wait = new Promise<void>((resolve) => (preserved = resolve))
    volume.guardOf = (offset) => (offset === BLOCK ? wait : null)
    writer.write(Buffer.concat([write(1), write(2)]))
    await until(() => volume.asked.length > 0)
    writer.write(write(3))
    await until(() => volume.asked.some(([offset]) => offset === 3 * BLOCK))
    assert.deepEqual([volume.written, gate.sequence], [[], 0])
    volume.guardOf = () => null
    preserved()
    await until(() => gate.sequence === 3)
    assert.deepEqual(volume.written, [BLOCK, 2 * BLOCK, 3 * BLOCK])
  })

  for (const [what, block] of [
    ['the first part of a write', 1],
    ['the last part of a write', 2],
    ['zeroes', 3],
  ] as const) {
    test(`of ${what} is asked about before anything of it is applied`, async (t) => {
      const { volume, writer, gate } = await world(t)
      const wanting = new Set([block * BLOCK])
      volume.guardOf = (offset) => {
        if (!wanting.has(offset)) return null
        return nextTurn().then(() => {
          assert.ok(!volume.written.includes(offset), 'preserved before it is changed')
          wanting.delete(offset)
        })
      }
      const zero = frame(FRAME.ZERO, 0, 1, 3, 3 * BLOCK, BLOCK)
      writer.write(Buffer.concat([write(1, FLAG.MORE), write(2), zero]))
      await until(() => gate.sequence === 3)
      assert.deepEqual([...wanting], [])
      assert.deepEqual(volume.written, [BLOCK, 2 * BLOCK, 3 * BLOCK])
    })
  }

  test('that has arrived is not applied any more when the link was given up', async (t) => {
    const { volume, writer, says, receiver, gate } = await world(t)
    let dealt = () => {}
    says.onMessage = () => new Promise((resolve) => (dealt = resolve))
    writer.write(Buffer.concat([write(1), message(), write(2)]))
    await until(() => gate.sequence === 1)
    receiver.destroy()
    dealt()
    for (let turn = 0; turn < 20; turn++) await nextTurn()
    assert.deepEqual(volume.written, [BLOCK])
  })

  test('of a member that is no more is passed over, one of a member that never was ends the link', async (t) => {
    const { writer, gate, answers, closed } = await world(t)
    const of = (member: number, seq: number) =>
      frame(FRAME.WRITE, 0, member, seq, 0, BLOCK, Buffer.alloc(BLOCK))
    writer.write(Buffer.concat([of(2, 1), write(2)]))
    await until(() => gate.sequence === 2)
    writer.write(of(3, 3))
    await closed
    await until(() => answers.at(-1)?.status === STATUS.UNKNOWN_MEMBER)
    assert.equal(gate.sequence, 2)
  })
})

describe('an answer of the replica', LIMIT, () => {
  test('to a FLUSH follows the fdatasync', async (t) => {
    const { volume, writer, answers } = await world(t)
    let synced = () => {}
    volume.syncing = new Promise((resolve) => (synced = resolve))
    writer.write(Buffer.concat([write(1), flush(5)]))
    await until(() => answers.length === 1)
    for (let turn = 0; turn < 20; turn++) await nextTurn()
    assert.deepEqual(
      answers.map(({ type }) => type),
      [ACK.APPLIED],
    )
    synced()
    await until(() => answers.length === 2)
    assert.deepEqual(answers.at(-1), { type: ACK.FLUSHED, status: STATUS.OK, number: 5 })
  })

  test('to a heartbeat is noted before it is given: until then the writer may answer its clients', async (t) => {
    let nowMs = 5_000
    const { writer, silence, answers } = await world(t, () => nowMs)
    writer.write(frame(FRAME.HEARTBEAT, 0, 0, 77, 0, 0))
    await until(() => answers.length === 1)
    nowMs = 6_000
    assert.deepEqual(answers, [{ type: ACK.ECHO, status: STATUS.OK, number: 77 }])
    assert.equal(silence.answeredMs, 5_000)
  })

  test('to a question AT ONCE shows the writes before it and none behind it, though they came together', async (t) => {
    const { volume, writer, sums } = await world(t)
    const ask = frame(FRAME.CHECKSUM, FLAG.AT_ONCE, 1, 9, BLOCK, BLOCK)
    const later = frame(FRAME.WRITE, 0, 1, 2, BLOCK, BLOCK, Buffer.alloc(BLOCK, 50))
    writer.write(Buffer.concat([write(1), ask, later]))
    await until(() => sums.length === 1 && volume.written.length === 2)
    assert.deepEqual(sums[0], await checksums(Buffer.alloc(BLOCK, 1)))
  })
})
