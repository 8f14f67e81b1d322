import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { FRAME_LENGTH_MAX } from '#wire/link/frame.ts'
import { Io, type IoError, type IoKind, IO_ERRORS } from '#agent/nbd/device.ts'
import { SlabPool } from '#agent/nbd/slab.ts'
import { VOLUME_FAILED, VOLUME_NO_SPACE } from '#agent/volumes/faults.ts'
import {
  MemoryChanges,
  MemoryIntent,
  MemoryVolume,
  nextTurn,
  TestClock,
} from '../data-path.test-kit.ts'
import type { OpenMember } from '../members.ts'
import type { RunFile } from '../run-file.ts'
import { AckGate, type GateMode } from '../session/ack-gate.ts'
import { Contact } from '../session/contact.ts'
import { Lease } from '../session/lease.ts'
import type { Sender } from './sender.ts'
import { Writer } from './writer.ts'

const KIB = 1024
const SIZE = 8 * KIB * KIB
const HOLD_BYTES = 64 * KIB
const LEASE_MS = 1_000
const { EIO, ENOSPC, ESHUTDOWN } = IO_ERRORS

/** A writer of two members without a link, which answers alone under a lease. */
function world(mode: GateMode = 'alone') {
  const clock = new TestClock()
  const lease = new Lease()
  const contact = new Contact(LEASE_MS)
  lease.granted(clock.ms, LEASE_MS)
  contact.heard(clock.ms)
  const gate = new AckGate(lease, contact)
  gate.mode = mode
  const localErrors: number[] = []
  const writer = new Writer({
    gate,
    clock,
    run: { store: () => undefined } as unknown as RunFile,
    holdBytes: HOLD_BYTES,
    frameLogBytes: 1024 * KIB,
    onLocalError: (member) => void localErrors.push(member),
    onLogDropped: () => undefined,
  })
  const memberOf = (index: number): Member => {
    const volume = new MemoryVolume(SIZE)
    const intent = new MemoryIntent()
    const changes = new MemoryChanges()
    const member = writer.addMember({ index, volume, intent, changes } as unknown as OpenMember)
    return { volume, intent, changes, todo: member.todo, device: member.device }
  }
  const members = [memberOf(1), memberOf(2)] as const
  writer.setInput(true)
  const slabs = new SlabPool({ slabBytes: 64 * KIB, idleCountMax: 8 })
  const submit = (kind: IoKind, offset = 0, length = 4096, fua = false) => {
    const answers: IoError[] = []
    const io = new Io({ done: (_io, error) => void answers.push(error) })
    Object.assign(io, { kind, offset, length, slab: slabs.take(), at: 28, fua })
    io.arm()
    members[0].device.submit([io], 1)
    return answers
  }
  return { writer, gate, clock, lease, contact, members, submit, localErrors }
}

interface Member {
  readonly volume: MemoryVolume
  readonly intent: MemoryIntent
  readonly changes: MemoryChanges
  readonly todo: { readonly count: number }
  readonly device: { submit(batch: readonly Io[], count: number): void }
}

const turns = async (count = 6): Promise<void> => {
  for (let turn = 0; turn < count; turn++) await nextTurn()
}

/** Whoever waits for what never comes is to end before the whole run does. */
const TURNS_MAX = 10_000

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition(); turn++) {
    assert.ok(turn < TURNS_MAX, 'it has not come')
    await nextTurn()
  }
}

const failed = () => new Fault(VOLUME_FAILED, 'volume v: fdatasync failed')
const full = () => new Fault(VOLUME_NO_SPACE, 'writing volume v')

describe('an answer', () => {
  for (const kind of ['write', 'read', 'flush'] as const) {
    test(`to a ${kind} waits when the lease has run out, until it is renewed`, async () => {
      const { submit, clock, lease, writer } = world()
      await turns()
      clock.pass(LEASE_MS)
      const answers = submit(kind)
      await turns()
      assert.deepEqual(answers, [])
      lease.granted(clock.ms, LEASE_MS)
      writer.release()
      assert.deepEqual(answers, [0])
    })
  }

  test('to a read waits in sync when the replica has not been heard, though nothing is unacknowledged', async () => {
    const { submit, clock, contact, writer } = world('both')
    clock.pass(LEASE_MS)
    const answers = submit('read')
    await turns()
    assert.deepEqual(answers, [])
    contact.heard(clock.ms)
    writer.release()
    assert.deepEqual(answers, [0])
  })

  test('is the error, to everybody who waits, when the session is over', async () => {
    const { submit, writer, gate } = world('both')
    const numbered = [submit('write'), submit('write', 8192), submit('flush')]
    await turns()
    writer.setInput(false)
    const waiting = submit('write', 16384)
    gate.acknowledge(1)
    writer.fail(ESHUTDOWN)
    assert.deepEqual([...numbered, waiting], [[ESHUTDOWN], [ESHUTDOWN], [ESHUTDOWN], [ESHUTDOWN]])
    assert.deepEqual(submit('write'), [ESHUTDOWN])
  })
})

describe('a disk that fails', () => {
  for (const [name, fault, error] of [
    ['its disk', failed, EIO],
    ['no room', full, ENOSPC],
  ] as const) {
    test(`fails the write: ${name}, and the copy sees to what it may have left half done`, async () => {
      const { submit, members, localErrors } = world()
      await turns()
      submit('write')
      await turns()
      members[0].changes.marked.clear()
      members[0].volume.fault = fault()
      const answers = [
        submit('write', 64 * KIB),
        submit('zero', 256 * KIB),
        submit('write', 0, 4096, true),
      ]
      await turns()
      assert.deepEqual(answers, [[error], [error], [error]])
      assert.deepEqual(
        [...members[0].changes.marked].sort((a, b) => a - b),
        [0, 1, 4],
      )
      assert.ok(members[0].todo.count >= 3)
      assert.deepEqual(localErrors, [1, 1, 1])
    })
  }

  test('fails the write in sync as well, and names the block to the copy', async () => {
    const { submit, members, gate, writer } = world('both')
    // A link that takes everything: what goes out on it needs no mark.
    const sender = { write: () => undefined, backlogBytes: 0 } as unknown as Sender
    writer.setSender(sender)
    submit('write')
    await turns()
    gate.acknowledge(1)
    writer.release()
    assert.equal(members[0].changes.marked.size, 0)
    members[0].volume.fault = full()
    const answers = submit('write', 64 * KIB)
    gate.acknowledge(2)
    writer.release()
    assert.deepEqual(answers, [ENOSPC])
    assert.ok(members[0].changes.covers(64 * KIB, 4096))
  })

  for (const kind of ['flush', 'write'] as const) {
    test(`at an fdatasync fails the ${kind} that asked for it`, async () => {
      const { submit, members, localErrors } = world()
      submit('write')
      await turns()
      members[0].volume.syncFault = failed()
      const answers = submit(kind, 0, 4096, true)
      await turns()
      assert.deepEqual([answers, localErrors], [[EIO], [1]])
    })
  }

  test('of one member makes a flush of all of them fail, whichever it is', async () => {
    for (const which of [0, 1] as const) {
      const { writer, members } = world()
      assert.equal(await settled(writer.flushAll(), writer), true)
      assert.deepEqual(
        members.map(({ volume }) => volume.syncs),
        [1, 1],
      )
      members[which].volume.syncFault = failed()
      assert.equal(await settled(writer.flushAll(), writer), false)
    }
  })

  test('under the intent bits fails whoever waits for them, and nothing is carried out', async () => {
    const { submit, members, localErrors } = world()
    members[0].intent.save = () => Promise.reject(new Error('EIO'))
    members[0].volume.onChange = () => assert.fail('changed without its bit')
    const answers = [submit('write'), submit('zero', 0, 3 * FRAME_LENGTH_MAX)]
    await turns()
    assert.deepEqual(answers, [[EIO], [EIO]])
    assert.deepEqual(localErrors, [1])
  })

  test('under a snapshot fails the write that it would have to preserve something of, and only that one', async () => {
    const { submit, members } = world()
    submit('write')
    await turns()
    const { volume } = members[0]
    const fault = full()
    volume.guardWith = (offset) => {
      if (offset !== 0) return null
      const wait = Promise.reject(fault)
      wait.catch(() => undefined)
      return wait
    }
    let changes = 0
    volume.onChange = () => void changes++
    const answers = [submit('write'), submit('write', 8192)]
    await turns()
    assert.deepEqual([answers, changes], [[[ENOSPC], [0]], 1])
  })
})

/** flushAll is answered by a release, as the replica's acknowledgements bring about. */
async function settled(flushed: Promise<boolean>, writer: Writer): Promise<boolean> {
  await turns(2)
  writer.release()
  return flushed
}

describe('a long zero', () => {
  const LENGTH = 6 * FRAME_LENGTH_MAX

  test('is answered with its last piece, and with FUA when all of it is durable', async () => {
    for (const fua of [false, true]) {
      const { submit, members, gate } = world()
      const { volume } = members[0]
      volume.bytes.fill(1)
      const answers = submit('zero', 0, LENGTH, fua)
      let zeroed = 0
      volume.onChange = (_, length) => {
        zeroed += length
        assert.deepEqual(answers, [], 'no piece follows the answer')
      }
      const syncsBefore = volume.syncs
      await until(() => answers.length > 0)
      assert.deepEqual([zeroed, gate.sequence], [LENGTH, 6])
      assert.equal(volume.syncs - syncsBefore, fua ? 1 : 0)
    }
  })

  test('waits for an intent bit that was cleared while it was under way, and for a snapshot that was taken', async () => {
    const { submit, members } = world()
    const { volume, intent } = members[0]
    const answers = submit('zero', 0, LENGTH)
    let pieces = 0
    let preserved = false
    volume.onChange = (offset, length) => {
      assert.ok(intent.touch(offset, length), 'the bit is durable')
      if (++pieces === 4) {
        intent.clear()
        volume.guardWith = () => {
          if (preserved) return null
          return nextTurn().then(() => void (preserved = true))
        }
      }
      assert.ok(pieces <= 4 || preserved)
    }
    await until(() => answers.length > 0)
    assert.deepEqual([answers, pieces, preserved], [[0], 6, true])
  })
})

describe('without input', () => {
  test('nothing is numbered, and what waits is numbered in its order when there is input again', async () => {
    const { submit, writer, gate, members } = world()
    submit('write')
    await turns()
    writer.setInput(false)
    const order: number[] = []
    members[0].volume.onChange = (offset) => void order.push(offset)
    const answers = [
      submit('write', 4096),
      submit('write', 8192),
      submit('zero', 0, 3 * FRAME_LENGTH_MAX),
    ]
    await turns()
    assert.deepEqual([gate.sequence, order], [1, []])
    assert.ok(writer.settled)
    writer.setInput(true)
    answers.push(submit('write', 12288))
    await until(() => answers.every(({ length }) => length > 0))
    assert.deepEqual(order.slice(0, 2), [4096, 8192])
  })

  test('it is taken again only while what is held has room', async () => {
    const { submit, writer, gate } = world('both')
    const answers = Array.from({ length: 40 }, (_, i) => submit('write', i * 4096))
    await turns(20)
    assert.equal(writer.heldBytes, HOLD_BYTES)
    assert.equal(gate.sequence, HOLD_BYTES / 4096)
    await until(() => {
      gate.acknowledge(gate.sequence)
      writer.release()
      return gate.acknowledged === 40
    })
    assert.ok(answers.every(([answer]) => answer === 0))
  })
})

test('a writer that begins alone keeps no log that anybody could catch up from: what an earlier process sent is not known', async () => {
  const { submit, writer } = world()
  writer.logFrames(true)
  submit('write')
  await turns()
  assert.equal(writer.logFrom, null)
  writer.changesCleared()
  assert.equal(writer.logFrom, 0)
})
