import assert from 'node:assert/strict'
import { chmod, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import { processesWithArgument } from '#base/system/process.ts'
import type { ScriptCall } from '#control/operations/services.ts'
import { recoveryScripts } from './scripts.ts'

async function lab(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'hf-scripts-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const write = async (name: string, text: string, mode = 0o755) => {
    await writeFile(join(directory, name), `#!/bin/sh\n${text}\n`)
    await chmod(join(directory, name), mode)
  }
  const call = (over: Partial<ScriptCall> = {}): ScriptCall => ({
    key: 'run-1',
    environment: { HOLDFAST_SITE: 'az2' },
    timeoutMs: 10_000,
    signal: new AbortController().signal,
    ...over,
  })
  return { directory, write, call, scripts: recoveryScripts(directory, systemClock) }
}

test('a script gets its environment and no other, and the end of what it prints is kept', async (t) => {
  const { scripts, write, call } = await lab(t)
  process.env['HOLDFAST_TEST_SECRET'] = 'do not pass on'
  t.after(() => delete process.env['HOLDFAST_TEST_SECRET'])
  await write('show', 'env | sort; echo to stderr >&2')
  const said = await scripts.run('show', call())
  assert.equal(said.ok, true)
  assert.match(said.output, /HOLDFAST_SITE=az2/)
  assert.match(said.output, /to stderr/)
  assert.doesNotMatch(said.output, /SECRET/)
  await write('much', 'yes | head -c 100000; echo the end')
  const much = await scripts.run('much', call())
  assert.equal(much.output.length, 4_096)
  assert.match(much.output, /the end\n$/)
})

test('a script that fails, hangs or is missing says so', async (t) => {
  const { scripts, write, call } = await lab(t)
  await write('fails', 'echo why; exit 3')
  assert.deepEqual(await scripts.run('fails', call()), {
    ok: false,
    reason: 'it ended with 3',
    output: 'why\n',
  })
  await write('hangs', 'sleep 60 & sleep 60')
  const hung = await scripts.run('hangs', call({ key: 'hung', timeoutMs: 100 }))
  assert.deepEqual([hung.ok, hung.reason], [false, 'it took longer than 0.1 s'])
  assert.deepEqual(await processesWithArgument('holdfast-recovery-hung'), [])
  assert.match((await scripts.run('absent', call())).reason ?? '', /does not exist/)
})

test('what other users could change, and what is not a plain file of the directory, does not run', async (t) => {
  const { scripts, write, directory } = await lab(t)
  await write('open', 'true', 0o777)
  assert.match((await scripts.unfit('open')) ?? '', /other users/)
  await write('inert', 'true', 0o644)
  // Root may execute nothing that nobody may.
  assert.match((await scripts.unfit('inert')) ?? '', /may not be executed/)
  await symlink('/bin/true', join(directory, 'link'))
  assert.match((await scripts.unfit('link')) ?? '', /not a regular file/)
  for (const name of ['../x', '.hidden', 'a/b', '']) {
    assert.match((await scripts.unfit(name)) ?? '', /no name of a script/)
  }
  await write('good', 'true')
  assert.equal(await scripts.unfit('good'), null)
  await chmod(directory, 0o777)
  assert.match((await scripts.unfit('good')) ?? '', /other users/)
})

test('a repetition ends what its forerunner left running', async (t) => {
  const { scripts, write, call, directory } = await lab(t)
  await write('slow', `echo $$ >> ${directory}/pids; sleep 60`)
  const first = scripts.run('slow', call({ key: 'twice' }))
  const pids = async () =>
    (await readFile(join(directory, 'pids'), 'utf8').catch(() => '')).split('\n').filter(Boolean)
  while ((await pids()).length === 0) await new Promise((resolve) => setTimeout(resolve, 20))
  await write('slow', 'echo again')
  const second = await scripts.run('slow', call({ key: 'twice' }))
  assert.deepEqual([second.ok, second.output], [true, 'again\n'])
  assert.equal((await first).ok, false)
})
