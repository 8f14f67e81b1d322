import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from './clock.ts'
import { isFault } from '../fault.ts'
import { ensureDirectory, LOCKED, lockFile, readTextIfPresent, writeFileWhole } from './files.ts'
import { killAndWait, processesWithArgument, readProcess } from './process.ts'

test('a file is replaced whole, with its mode, and leaves no temporary file', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-files-'))
  t.after(() => rm(directory, { recursive: true }))
  const path = join(directory, 'secret')
  assert.equal(await readTextIfPresent(path), undefined)
  await writeFileWhole(path, 'one', 0o644)
  await writeFileWhole(path, 'two', 0o600)
  assert.equal(await readFile(path, 'utf8'), 'two')
  assert.equal((await stat(path)).mode & 0o777, 0o600)
  assert.deepEqual(await readdir(directory), ['secret'])
})

test('a directory is made with its parents, by several at once, and an existing one keeps its mode', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-files-'))
  t.after(() => rm(directory, { recursive: true }))
  const path = join(directory, 'a', 'b', 'c')
  await Promise.all([1, 2, 3].map(() => ensureDirectory(path, 0o700)))
  await ensureDirectory(path, 0o755)
  for (const made of [path, join(directory, 'a')]) {
    assert.equal((await stat(made)).mode & 0o777, 0o700)
  }
})

test('a directory that cannot be made is an error, where the parent is a file or takes none', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-files-'))
  t.after(() => rm(directory, { recursive: true }))
  const file = join(directory, 'file')
  await writeFile(file, '')
  await assert.rejects(ensureDirectory(file), { code: 'EEXIST' })
  await assert.rejects(ensureDirectory(join(file, 'x')), { code: 'ENOTDIR' })
  await assert.rejects(ensureDirectory('/proc/holdfast/x'), { code: 'ENOENT' })
})

test('a lock is held by one at a time and ends with the process that holds it, even by SIGKILL', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-lock-'))
  t.after(() => rm(directory, { recursive: true }))
  const path = join(directory, 'lock')
  const module = new URL('./files.ts', import.meta.url).href
  const holder = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `const { lockFile } = await import(${JSON.stringify(module)})
       lockFile(process.argv[1])
       console.log('held')
       setInterval(() => 0, 1000)`,
      path,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  await once(holder.stdout, 'data')
  assert.throws(
    () => lockFile(path),
    (error) => isFault(error, LOCKED),
  )
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  const first = lockFile(path)
  assert.throws(
    () => lockFile(path),
    (error) => isFault(error, LOCKED),
  )
  first.release()
  first.release()
  lockFile(path).release()
})

test('a process is found by one of its arguments and killed for good', async (t) => {
  const mark = `holdfast-mark-${process.pid}`
  const child = spawn(process.execPath, ['-e', 'setInterval(() => 0, 1000)', mark])
  t.after(() => child.kill('SIGKILL'))
  await once(child, 'spawn')
  const [found, ...others] = await processesWithArgument(mark)
  assert.deepEqual(others, [])
  assert.equal(found?.pid, child.pid)
  assert.equal((await readProcess(process.pid))?.commandLine[0], process.execPath)
  if (found !== undefined) assert.equal(await killAndWait(systemClock, found, 5_000), true)
  assert.deepEqual(await processesWithArgument(mark), [])
  assert.equal(await readProcess(4_194_305), undefined)
})
