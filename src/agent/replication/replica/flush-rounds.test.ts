import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { STATUS } from '#wire/link/frame.ts'
import { Io, type IoError } from '#agent/nbd/device.ts'
import { FlushRounds } from './flush-rounds.ts'
import type { WriterMember } from '../writer/writer-member.ts'

/** Rounds of one member whose fdatasyncs end when the test says so, on a link that takes FLUSH while `linked`. */
function world() {
  let numbered = 0
  let linked = true
  /** For each FLUSH on the link, what had been numbered before it. */
  const asked: number[] = []
  const fdatasyncs: (() => void)[] = []
  const answers: string[] = []
  const rounds = new FlushRounds({
    askReplica: () => (linked ? asked.push(numbered) : 0),
    numbered: () => numbered,
    needsReplica: () => true,
    onLocalError: () => undefined,
    onChange: () => rounds.end(numbered),
  })
  const volume = {
    failed: undefined,
    flush: () => new Promise<void>((resolve) => fdatasyncs.push(resolve)),
  }
  const member = { index: 1, volume, running: null, next: null } as unknown as WriterMember
  const io = (name: string) =>
    new Io({ done: (_io, error: IoError) => void answers.push(`${name} ${error}`) })
  /** A write with FUA, as it is numbered, given to the link and carried out here. */
  const write = (name: string) => {
    numbered++
    rounds.askAhead(member)
    join(name, numbered)
  }
  const join = (name: string, seq = 0) => {
    const one = io(name)
    one.arm()
    rounds.join(member, one, seq)
  }
  return {
    rounds,
    member,
    asked,
    fdatasyncs,
    answers,
    write,
    join,
    number: () => void numbered++,
    setLink: (up: boolean) => {
      linked = up
      rounds.linkChanged()
    },
  }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

describe('flushes of a writer', () => {
  test('a write with FUA has FLUSH right behind it on the link, and no second one', async () => {
    const { rounds, write, join, asked, fdatasyncs, answers } = world()
    write('fua')
    assert.deepEqual(asked, [1])
    join('flush')
    await turn()
    assert.deepEqual([asked, fdatasyncs.length], [[1], 1])
    rounds.flushed(1, STATUS.OK)
    assert.deepEqual(answers, [])
    fdatasyncs[0]?.()
    await turn()
    assert.deepEqual(answers, ['fua 0', 'flush 0'])
  })

  test('what is numbered behind a FLUSH waits for the next one, also in the same turn', async () => {
    const { rounds, write, join, number, asked, fdatasyncs, answers } = world()
    write('first')
    write('second')
    number()
    join('flush')
    await turn()
    assert.deepEqual([asked, fdatasyncs.length], [[1], 1])
    fdatasyncs[0]?.()
    rounds.flushed(1, STATUS.OK)
    await turn()
    assert.deepEqual(answers, ['first 0'])
    assert.deepEqual([asked, fdatasyncs.length], [[1, 3], 2])
    fdatasyncs[1]?.()
    rounds.flushed(2, STATUS.OK)
    await turn()
    assert.deepEqual(answers, ['first 0', 'second 0', 'flush 0'])
  })

  test('nothing joins an fdatasync that has begun', async () => {
    const { rounds, write, join, fdatasyncs, answers } = world()
    write('first')
    await turn()
    join('flush')
    fdatasyncs[0]?.()
    rounds.flushed(1, STATUS.OK)
    await turn()
    assert.deepEqual([answers, fdatasyncs.length], [['first 0'], 2])
  })

  test('flushes of one turn share a round when no FLUSH has left yet, whatever was numbered between them', async () => {
    const { join, number, asked, fdatasyncs } = world()
    join('one')
    number()
    join('two')
    await turn()
    assert.deepEqual([asked, fdatasyncs.length], [[1], 1])
  })

  test('a FLUSH whose link went in the same turn is put on the next link', async () => {
    const { rounds, write, setLink, asked, answers, fdatasyncs } = world()
    write('fua')
    setLink(false)
    await turn()
    fdatasyncs[0]?.()
    await turn()
    assert.deepEqual(answers, [])
    setLink(true)
    rounds.requirePeer()
    assert.deepEqual(asked, [1, 1])
    rounds.flushed(2, STATUS.OK)
    assert.deepEqual(answers, ['fua 0'])
  })
})
