import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, open, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import { processesWithArgument } from '#base/system/process.ts'
import type { ScriptCall, ScriptOutcome } from '#control/operations/services.ts'
import { recoveryScripts } from './scripts.ts'

const [MINE, OTHERS] = ['project-1', 'project-2']

async function lab(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'hf-scripts-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const write = async (name: string, text: string, mode = 0o755, project = MINE) => {
    await mkdir(join(directory, project), { recursive: true })
    await writeFile(join(directory, project, name), `#!/bin/sh\n${text}\n`)
    await chmod(join(directory, project, name), mode)
  }
  const begin = () =>
    recoveryScripts(directory, {
      clock: systemClock,
      log: createLog('test', 'fatal'),
      owner: 'me',
    })
  const scripts = begin()
  /** What becomes of it; null: nobody knows. */
  const run = async (name: string, over: Partial<ScriptCall> = {}, by = scripts) => {
    let outcome: ScriptOutcome | null = null
    const environment = { HOLDFAST_SITE: 'az2' }
    const call = { project: MINE, name, key: name, environment, timeoutMs: 10_000, ...over }
    assert.ok(by.reserve(call.key))
    await by.begin(call, async (one) => {
      outcome = one
    })
    return outcome as ScriptOutcome | null
  }
  const pids = async () => {
    const text = await readFile(join(directory, MINE, 'pids'), 'utf8').catch(() => '')
    return text.split('\n').filter(Boolean)
  }
  const begun = async (count: number) => {
    while ((await pids()).length < count) await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return { directory, write, run, begin, begun, scripts }
}

test('a script gets its environment and no other, and the end of what it prints is kept', async (t) => {
  const { run, write } = await lab(t)
  process.env['HOLDFAST_TEST_SECRET'] = 'do not pass on'
  t.after(() => delete process.env['HOLDFAST_TEST_SECRET'])
  await write('show', 'env | sort; echo to stderr >&2')
  const said = await run('show')
  assert.equal(said?.ok, true)
  assert.match(said.output, /HOLDFAST_SITE=az2/)
  assert.match(said.output, /to stderr/)
  assert.doesNotMatch(said.output, /SECRET/)
  await write('much', 'yes | head -c 100000; echo the end')
  const much = await run('much')
  assert.equal(much?.output.length, 4_096)
  assert.match(much.output, /the end\n$/)
})

test('a script that fails, hangs or is missing says so', async (t) => {
  const { run, write } = await lab(t)
  await write('fails', 'echo why; exit 3')
  assert.deepEqual(await run('fails'), { ok: false, reason: 'it ended with 3', output: 'why\n' })
  await write('hangs', 'sleep 60 & sleep 60')
  const hung = await run('hangs', { key: 'hung', timeoutMs: 100 })
  assert.deepEqual([hung?.ok, hung?.reason], [false, 'it took longer than 0.1 s'])
  assert.deepEqual(await processesWithArgument('holdfast-recovery-hung'), [])
  assert.match((await run('absent'))?.reason ?? '', /does not exist/)
})

test('a project runs what lies in its own directory, and nothing of another one', async (t) => {
  const { run, write, scripts, directory } = await lab(t)
  await write('move-address', 'echo theirs', 0o755, OTHERS)
  await write('own', 'pwd')
  assert.equal(await scripts.unfit(OTHERS, 'move-address'), null)
  for (const name of ['move-address', `../${OTHERS}/move-address`]) {
    const said = await run(name, { key: 'x' })
    assert.equal(said?.ok, false, name)
    assert.equal(said.output, '')
  }
  assert.equal((await run('own'))?.output, `${join(directory, MINE)}\n`)
  // Those of former times, which every project could run.
  await writeFile(join(directory, 'common'), '#!/bin/sh\n')
  await chmod(join(directory, 'common'), 0o755)
  assert.match((await scripts.unfit(MINE, 'common')) ?? '', /does not exist/)
  await symlink(join(directory, OTHERS), join(directory, 'project-3'))
  assert.match((await scripts.unfit('project-3', 'move-address')) ?? '', /not a directory/)
})

test('what other users could change, and what is not a plain file of the directory, does not run', async (t) => {
  const { scripts, write, directory } = await lab(t)
  await write('open', 'true', 0o777)
  assert.match((await scripts.unfit(MINE, 'open')) ?? '', /other users/)
  await write('inert', 'true', 0o644)
  // Root may execute nothing that nobody may.
  assert.match((await scripts.unfit(MINE, 'inert')) ?? '', /may not be executed/)
  await symlink('/bin/true', join(directory, MINE, 'link'))
  assert.match((await scripts.unfit(MINE, 'link')) ?? '', /not a regular file/)
  for (const name of ['../x', '.hidden', 'a/b', '']) {
    assert.match((await scripts.unfit(MINE, name)) ?? '', /no name of a script/)
  }
  await write('good', 'true')
  assert.equal(await scripts.unfit(MINE, 'good'), null)
  for (const folder of [join(directory, MINE), directory]) {
    await chmod(folder, 0o777)
    assert.match((await scripts.unfit(MINE, 'good')) ?? '', /other users/)
    await chmod(folder, 0o755)
  }
})

test('a repetition by another process ends what its forerunner left running', async (t) => {
  const { begin, write, run, begun, directory } = await lab(t)
  await write('slow', `echo $$ >> ${directory}/${MINE}/pids; sleep 60`)
  const first = run('slow', { key: 'twice' })
  await begun(1)
  await write('slow', 'echo again')
  const second = await run('slow', { key: 'twice' }, begin())
  assert.deepEqual([second?.ok, second?.output], [true, 'again\n'])
  assert.equal((await first)?.ok, false)
})

test('an outcome that could not be kept is tried to be kept again; a script that is cut short has none', async (t) => {
  const { scripts, write, run, begun, directory } = await lab(t)
  await write('quick', 'echo done')
  let tries = 0
  const call = { project: MINE, name: 'quick', key: 'q', environment: {}, timeoutMs: 10_000 }
  assert.ok(scripts.reserve('q'))
  const work = scripts.begin(call, async () => {
    if (++tries === 1) throw new Error('the database is away')
  })
  assert.equal(scripts.runs('q'), true)
  await work
  assert.deepEqual([tries, scripts.runs('q')], [2, false])

  await write('slow', `echo $$ >> ${directory}/${MINE}/pids; sleep 60`)
  const cut = run('slow', { key: 'cut' })
  await begun(1)
  scripts.end('cut')
  assert.equal(await cut, null)
  const stopped = run('slow', { key: 'stopped' })
  await begun(2)
  await scripts.stop()
  assert.equal(await stopped, null)
  assert.equal(scripts.reserve('late'), false)
  for (const key of ['cut', 'stopped']) {
    assert.deepEqual(await processesWithArgument(`holdfast-recovery-${key}`), [])
  }
})

test('a script that cannot be run at all comes to an end that is kept', async (t) => {
  const { scripts, write, directory, run } = await lab(t)
  await write('busy', 'true')
  // Open for writing: it may not be executed (ETXTBSY).
  const file = await open(join(directory, MINE, 'busy'), 'r+')
  const said = await run('busy')
  await file.close()
  assert.equal(said?.ok, false)
  assert.match(said.reason ?? '', /could not be run: .*ETXTBSY/)
  assert.equal(scripts.runs('busy'), false)
  const none = recoveryScripts(null, {
    clock: systemClock,
    log: createLog('test', 'fatal'),
    owner: 'other',
  })
  assert.match((await run('busy', {}, none))?.reason ?? '', /no directory of scripts/)
})

test('no more run at once than there are places, also of those that are about to begin', async (t) => {
  const { scripts, write } = await lab(t)
  const keys = Array.from({ length: 32 }, (_, index) => `place-${index}`)
  for (const key of keys) assert.ok(scripts.reserve(key))
  assert.deepEqual([scripts.reserve('place-0'), scripts.reserve('one-more')], [false, false])
  scripts.release('place-1')
  assert.ok(scripts.reserve('one-more'))
  // One that is about to begin when everything stops does not begin.
  await write('quick', 'true')
  await scripts.stop()
  const call = { project: MINE, name: 'quick', key: 'place-0', environment: {}, timeoutMs: 10_000 }
  await scripts.begin(call, async () => assert.fail('it did not run'))
  assert.equal(scripts.runs('place-0'), false)
})

test('a sign of life that stands still is noticed', async (t) => {
  const { scripts } = await lab(t)
  assert.equal(scripts.quietMs('key', 'other 1 4'), 0)
  await new Promise((resolve) => setTimeout(resolve, 100))
  assert.ok(scripts.quietMs('key', 'other 1 4') >= 99)
  assert.equal(scripts.quietMs('key', 'other 1 5'), 0)
})
