/** A recovery plan with everything in it, over a control plane that dies at every boundary of what follows it. */
import assert from 'node:assert/strict'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Answer, Lives } from './lives.ts'

const SCRIPT = 'announce'

/** Where the control plane looks for the scripts of plans. */
export async function makeScripts(directory: string): Promise<void> {
  const scripts = join(directory, 'scripts')
  await mkdir(scripts)
  await writeFile(join(scripts, SCRIPT), '#!/bin/sh\necho announced\n')
  await chmod(join(scripts, SCRIPT), 0o700)
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
  }
}
