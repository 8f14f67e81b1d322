import assert from 'node:assert/strict'
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { noteConsoleStart } from '../console-start.ts'
import { CONSOLE_LOG } from './arguments.ts'
import { readConsole, readConsoleSinceStart, rotateConsole } from './console-log.ts'

const KEEP = 1_000

function folder(t: TestContext) {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-console-'))
  t.after(() => rmSync(path, { recursive: true }))
  const log = join(path, CONSOLE_LOG)
  return {
    path,
    says: (text: string) => appendFileSync(log, text),
    rotate: async () => await rotateConsole(path, KEEP, async () => writeFileSync(log, '')),
    sinceStart: () => readConsoleSinceStart(path, KEEP),
  }
}

test('what a guest said before its last start does not count as said since', async (t) => {
  const { path, says, sinceStart } = folder(t)
  await noteConsoleStart(path, CONSOLE_LOG)
  says('READY one\n')
  assert.equal(await sinceStart(), 'READY one\n')
  await noteConsoleStart(path, CONSOLE_LOG)
  assert.equal(await sinceStart(), '')
  says('booting\n')
  assert.equal(await sinceStart(), 'booting\n')
  assert.equal(await readConsole(path, KEEP), 'READY one\nbooting\n')
})

test('a console that grew beyond its bound since the start still begins there, as far as it is kept', async (t) => {
  const { path, says, rotate, sinceStart } = folder(t)
  says('READY one\n')
  await noteConsoleStart(path, CONSOLE_LOG)
  says(`${'x'.repeat(480)}\nsecond\n`)
  await rotate()
  says('third\n')
  assert.equal(await sinceStart(), `${'x'.repeat(480)}\nsecond\nthird\n`)
  says('y'.repeat(500))
  await rotate()
  assert.equal(await sinceStart(), await readConsole(path, KEEP), 'the start is no longer kept')
})
