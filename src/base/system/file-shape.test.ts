import assert from 'node:assert/strict'
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileShape } from './file-shape.ts'

const shape = (fd: number) => {
  const { nlink, size } = fileShape(fd)
  return { nlink, size }
}

test('the shape of an open file is its length and whether it still has a name', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-shape-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'file')
  const fd = openSync(path, 'w+')
  try {
    assert.deepEqual(shape(fd), { nlink: 1, size: 0 })
    const size = 5 * 1024 ** 3 + 7
    ftruncateSync(fd, size)
    assert.deepEqual(shape(fd), { nlink: 1, size })
    rmSync(path)
    assert.deepEqual(shape(fd), { nlink: 0, size })
  } finally {
    closeSync(fd)
  }
  assert.throws(() => fileShape(fd), { code: 'EBADF' })
})

test('a file that was looked at is given the time of a step of the kernel by its next write, like one that was not', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-shape-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const writtenAt = (fd: number): bigint => {
    const { mtimeNs } = fstatSync(fd, { bigint: true })
    closeSync(fd)
    return mtimeNs
  }
  const together = (attempt: number): boolean => {
    const looked = openSync(join(directory, `looked-${attempt}`), 'w')
    const other = openSync(join(directory, `other-${attempt}`), 'w')
    fileShape(looked)
    // In this order: no later time of any file is before an exact one that was given.
    writeSync(other, Buffer.from('x'))
    writeSync(looked, Buffer.from('x'))
    return writtenAt(looked) === writtenAt(other)
  }
  // Now and then a step of the clock lies between the two writes; where times are asked for, in few cases none.
  const attempts = Array.from({ length: 50 }, (_, i) => i)
  assert.ok(attempts.filter(together).length > attempts.length / 2)
})
