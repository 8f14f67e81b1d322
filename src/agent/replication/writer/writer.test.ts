import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import { Io, type IoError, IO_ERRORS } from '#agent/nbd/device.ts'
import { SlabPool } from '#agent/nbd/slab.ts'
import { AckGate } from '../session/ack-gate.ts'
import { Contact } from '../session/contact.ts'
import { Lease } from '../session/lease.ts'
import type { OpenMember } from '../members.ts'
import type { RunFile } from '../run-file.ts'
import { Writer } from './writer.ts'

const BYTES = 4096

/** A writer in sync without a link, over a volume in memory whose disk can fail. */
function world() {
  const lease = new Lease()
  const gate = new AckGate(lease, new Contact(1_000))
  gate.mode = 'both'
  const writer = new Writer({
    gate,
    clock: systemClock,
    run: { store: () => undefined } as unknown as RunFile,
    holdBytes: 1024 * 1024,
    frameLogBytes: 1024 * 1024,
    onLocalError: () => undefined,
    onLogDropped: () => undefined,
  })
  const volume: { failed: string | undefined } & Record<string, unknown> = {
    sizeBytes: 64 * BYTES,
    failed: undefined,
    guard: () => null,
    writeSync: () => undefined,
    readCached: () => true,
    flush: () => Promise.resolve(),
  }
  const member = writer.addMember({
    index: 1,
    volume,
    intent: { touch: () => true },
    changes: { mark: () => undefined },
  } as unknown as OpenMember)
  writer.setInput(true)
  const slabs = new SlabPool({ slabBytes: 4 * BYTES, idleCountMax: 1 })
  const submit = (kind: 'write' | 'read' | 'flush') => {
    const answers: IoError[] = []
    const io = new Io({ done: (_io, error) => void answers.push(error) })
    Object.assign(io, { kind, offset: 0, length: BYTES, slab: slabs.take(), at: 28 })
    io.arm()
    member.device.submit([io], 1)
    return answers
  }
  const goAlone = () => {
    gate.mode = 'alone'
    lease.granted(systemClock.bootMs(), 60_000)
    writer.release()
  }
  return { volume, gate, writer, submit, goAlone }
}

test('what was held in sync is answered when this side goes on alone', async () => {
  const { submit, goAlone } = world()
  const answers = [submit('write'), submit('read'), submit('flush')]
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(answers, [[], [], []])
  goAlone()
  assert.deepEqual(answers, [[0], [0], [0]])
})

test('after its disk has failed it is answered with an error: nobody has it', async () => {
  const { volume, submit, goAlone } = world()
  const answers = [submit('write'), submit('read'), submit('flush')]
  await new Promise((resolve) => setImmediate(resolve))
  volume.failed = 'fdatasync failed'
  goAlone()
  const { EIO } = IO_ERRORS
  assert.deepEqual(answers, [[EIO], [EIO], [EIO]])
})

test('unless the replica has acknowledged it', async () => {
  const { volume, gate, writer, submit, goAlone } = world()
  const answers = [submit('write'), submit('read')]
  gate.acknowledge(1)
  volume.failed = 'fdatasync failed'
  goAlone()
  assert.deepEqual(answers, [[0], [0]])
  assert.equal(writer.settled, true)
})
