/** A recovery plan with everything in it, over a control plane that dies at every boundary of what follows it. */
import assert from 'node:assert/strict'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PROJECT } from '../../support/region-parts.ts'
import type { Answer, Lives } from './lives.ts'

const SCRIPT = 'announce'

/** The script that runs before a start ends the control plane in its midst, the first time. */
const TEXT = `#!/bin/sh
echo "$HOLDFAST_RUN $HOLDFAST_PHASE $HOLDFAST_ATTEMPT $HOLDFAST_CALL" >> runs
if test "$HOLDFAST_PHASE $HOLDFAST_ATTEMPT" = 'before 1'; then kill -9 $PPID; sleep 60; fi
echo announced
`

/** Where the control plane looks for the scripts of plans. */
export async function makeScripts(directory: string): Promise<void> {
  const scripts = join(directory, 'scripts', PROJECT)
  await mkdir(scripts, { recursive: true })
  await writeFile(join(scripts, SCRIPT), TEXT)
  await chmod(join(scripts, SCRIPT), 0o700)
}

/**
 * Of every recovery: the script that was killed with the control plane ran twice, under the same name and told that it was the second time; the
 * other one ran once, although the control plane died between its end and the next step.
 */
export async function eachScriptRan(directory: string, recoveries: number): Promise<void> {
  const text = await readFile(join(directory, 'scripts', PROJECT, 'runs'), 'utf8')
  const lines = text.trimEnd().split('\n')
  const calls = lines.map((line) => line.split(' '))
  const runs = new Set(calls.map(([run]) => run))
  assert.equal(runs.size, recoveries)
  for (const run of runs) {
    const of = calls.filter(([one]) => one === run)
    assert.deepEqual(
      of.map(([, phase, attempt]) => `${phase} ${attempt}`),
      ['before 1', 'before 2', 'after 1'],
    )
    assert.equal(of[0]?.[3], of[1]?.[3])
  }
}

/** Its one instance waits for somebody, is asked whether it is ready, and has a script on either side of its start. */
export async function planRecovery(lives: Lives, group: string, instance: string): Promise<void> {
  const path = `/api/v1/groups/${group}/recovery-plan`
  const plan = {
    waves: [{ instances: [instance], pause: 'Look first.' }],
    instances: {
      [instance]: {
        probes: [{ probe: { kind: 'tcp', port: 80 }, timeout_s: 120 }],
        script_before: { script: SCRIPT },
        script_after: { script: SCRIPT },
      },
    },
  }
  await lives.change('PUT', path, plan, async () => {
    const answer = await lives.ask('GET', path)
    return answer?.status === 200 ? answer.body.recovery_plan !== null : null
  })
}

/** The recovery after a switch waits; somebody lets it go on, and in the end every server is ready. */
export async function goOn(
  lives: Lives,
  group: string,
  reason: string,
  runs: number,
): Promise<void> {
  const path = `/api/v1/groups/${group}/recovery`
  const newest = async (): Promise<Answer['body']> => {
    const found = (await lives.get(path, 'recoveries')) as Answer['body'][] | null
    return found?.length === runs ? found[0] : null
  }
  const paused = await lives.until('the recovery waits', async () => {
    const run = await newest()
    return run?.state === 'paused' ? run : null
  })
  assert.deepEqual([paused.reason, paused.waits_for], [reason, 'Look first.'])
  await lives.change('POST', `${path}/continue`, {}, async () => {
    const run = await newest()
    return run === null ? null : run.state !== 'paused'
  })
  const ended = await lives.until('the recovery has ended', async () => {
    const run = await newest()
    return run === null || run.ended_at === null ? null : run
  })
  assert.equal(ended.state, 'done')
  for (const server of ended.servers) {
    assert.equal(server.state, 'ready', JSON.stringify(server))
    assert.equal(server.script_before.output, 'announced\n')
    assert.equal(server.script_after.output, 'announced\n')
    assert.deepEqual([server.script_before.attempts, server.script_after.attempts], [2, 1])
  }
}
