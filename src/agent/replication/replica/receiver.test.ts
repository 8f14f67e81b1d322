import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { ACK, FLAG, FRAME, frame, STATUS } from '#wire/link/frame.ts'
import { VOLUME_FAILED, VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import { BLOCK, flush, SIZE, until, world, write } from './receiver.test-kit.ts'

const failed = () => new Fault(VOLUME_FAILED, 'volume b-1: fdatasync failed')

describe('the receiver', () => {
  test("a flush that fails ends the link with the reason instead of failing the writer's client", async (t) => {
    const { volume, writer, answers, refused, closed, ended, gate } = await world(t)
    writer.write(write(1))
    await until(() => gate.sequence === 1)
    volume.syncFault = failed()
    writer.write(Buffer.concat([flush(7), write(2)]))
    const reason = await closed
    await ended
    assert.match(reason, /volume 1 failed/)
    assert.doesNotMatch(reason, /frame/)
    assert.deepEqual(refused, [`${STATUS.IO} ${reason}`])
    assert.deepEqual(
      answers.filter(({ type }) => type === ACK.FLUSHED),
      [],
    )
    assert.deepEqual(answers.at(-1), {
      type: ACK.APPLIED,
      status: STATUS.IO,
      number: gate.sequence,
    })
  })

  test('a block that cannot be read is an answer, a volume that failed over it ends the link', async (t) => {
    const { volume, writer, answers, closed } = await world(t)
    volume.syncFault = failed()
    writer.write(frame(FRAME.FETCH, 0, 1, 3, 0, BLOCK))
    await until(() => answers.length === 1)
    assert.deepEqual(answers, [{ type: ACK.BLOCK, status: STATUS.IO, number: 3 }])
    volume.failed = 'for ever'
    writer.write(frame(FRAME.FETCH, 0, 1, 4, 0, BLOCK))
    assert.match(await closed, /volume 1 failed/)
  })

  test('a frame that does not fit ends the link and says so, with more frames unread behind it', async (t) => {
    const { volume, writer, answers, closed, ended, gate } = await world(t)
    writer.write(write(1))
    await until(() => gate.sequence === 1)
    volume.fault = new Fault(VOLUME_NO_SPACE, 'writing volume b-1')
    for (let seq = 2; seq < 200; seq++) writer.write(write(seq))
    assert.match(await closed, /frame 2 could not be applied/)
    await ended
    assert.deepEqual(answers.at(-1), { type: ACK.APPLIED, status: STATUS.NO_SPACE, number: 1 })
  })

  test('the number is noted after every frame, also of those that came together', async (t) => {
    const { writer, gate, noted, answers } = await world(t)
    const parts = [write(3, FLAG.MORE), write(4)]
    writer.write(Buffer.concat([write(1), write(2), ...parts, write(5), flush(1)]))
    await until(() => answers.some(({ type }) => type === ACK.FLUSHED))
    assert.equal(gate.sequence, 5)
    assert.deepEqual(noted, [1, 2, 4, 5])
    assert.deepEqual(answers.filter(({ type }) => type === ACK.APPLIED).at(-1)?.number, 5)
  })

  for (const member of [1, 2]) {
    test(`a write and the FLUSH of member ${member} in one piece have one acknowledgement each, the write's first`, async (t) => {
      const { writer, answers } = await world(t)
      writer.write(Buffer.concat([write(1), frame(FRAME.FLUSH, 0, member, 7, 0, 0), flush(8)]))
      await until(() => answers.length >= 3)
      assert.deepEqual(answers, [
        { type: ACK.APPLIED, status: STATUS.OK, number: 1 },
        { type: ACK.FLUSHED, status: STATUS.OK, number: 7 },
        { type: ACK.FLUSHED, status: STATUS.OK, number: 8 },
      ])
    })
  }

  test('a write is made durable when the last one was flushed a journey later, and one flushed in its own piece tells nothing', async (t) => {
    let nowMs = 0
    const { volume, writer, answers } = await world(t, () => nowMs)
    const said = async (bytes: Buffer) => {
      const count = answers.length
      writer.write(bytes)
      await until(() => answers.length > count)
    }
    await said(write(1))
    nowMs += 2
    await said(flush(1))
    assert.deepEqual(volume.prepared, [])
    await said(write(2))
    assert.deepEqual(volume.prepared, [true])
    nowMs += 2
    await said(flush(2))
    const count = answers.length
    writer.write(Buffer.concat([write(3), flush(3)]))
    await until(() => answers.length === count + 2)
    assert.deepEqual(volume.prepared, [true], 'its flush is here already')
    await said(write(4))
    assert.deepEqual(volume.prepared, [true, true])
    await said(write(5))
    assert.deepEqual(volume.prepared, [true, true, false], 'one write more than the last time')
    await said(flush(5))
    await said(write(6))
    assert.equal(volume.prepared.length, 3, 'the last flush came at once')
  })

  test('a question about bytes that the volume does not have is answered, and asks nothing of it', async (t) => {
    const { writer, answers } = await world(t)
    writer.write(
      Buffer.concat([
        frame(FRAME.CHECKSUM, 0, 1, 5, SIZE, BLOCK),
        frame(FRAME.CHECKSUM, FLAG.AT_ONCE, 1, 6, SIZE - 1, BLOCK),
        frame(FRAME.FETCH, 0, 1, 7, SIZE - BLOCK + 512, BLOCK),
      ]),
    )
    await until(() => answers.length === 3)
    assert.deepEqual(answers, [
      { type: ACK.CHECKSUMS, status: STATUS.BEYOND_END, number: 5 },
      { type: ACK.CHECKSUMS, status: STATUS.BEYOND_END, number: 6 },
      { type: ACK.BLOCK, status: STATUS.BEYOND_END, number: 7 },
    ])
  })

  test('zeroes in the middle of a write in parts end the link, and nothing of either is applied', async (t) => {
    const { writer, gate, closed } = await world(t)
    writer.write(Buffer.concat([write(1, FLAG.MORE), frame(FRAME.ZERO, 0, 1, 2, 0, BLOCK)]))
    assert.match(await closed, /middle of a write in parts/)
    assert.equal(gate.sequence, 0)
  })

  test('what a snapshot has no room to preserve is not applied', async (t) => {
    const { volume, writer, answers, closed, ended, gate } = await world(t)
    volume.guarded = Promise.reject(new Fault(VOLUME_NO_SPACE, 'preserving'))
    volume.guarded.catch(() => undefined)
    writer.write(write(1, FLAG.COPY))
    await closed
    await ended
    assert.equal(gate.sequence, 0)
    assert.deepEqual(answers, [{ type: ACK.APPLIED, status: STATUS.NO_SPACE, number: 0 }])
  })
})
