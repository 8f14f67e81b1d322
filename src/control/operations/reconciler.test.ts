import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemClock as clock } from '#base/system/clock.ts'
import { addChore, listChores } from '#control/resources/surroundings.ts'
import { SITE_REFUSED } from '#control/sites/client.ts'
import { openStore } from '#control/store/open.ts'
import { createReconciler, decide, type ReconcilerOptions } from './reconciler.ts'

const member = (pair: string) => ({
  volume: `v-${pair}`,
  pair,
  joined: true,
  copied_bytes: 0,
  size_bytes: 1,
})
const told = (epoch: number, ...pairs: string[]) => ({
  epoch,
  link: 'up' as const,
  members: pairs.map(member),
})
const open = { state: 'in_sync', epoch: 5 } as const
const closed = { state: 'closed', epoch: 5 } as const

test('an agent that agrees with the record is left alone', () => {
  assert.equal(decide(open, ['a', 'b'], told(5, 'b', 'a'), true, false), null)
  assert.equal(decide(closed, [], null, true, false), null)
})

test('an agent without the session, behind, or lacking a member is opened', () => {
  assert.deepEqual(decide(open, ['a'], null, true, false), { kind: 'open' })
  assert.deepEqual(decide(open, ['a'], told(4, 'a'), true, false), { kind: 'open' })
  assert.deepEqual(decide(open, ['a', 'b'], told(5, 'a'), true, false), { kind: 'open' })
})

test('an agent that is ahead of the record that was read is left alone', () => {
  assert.equal(decide(open, ['a'], told(6, 'a'), true, false), null)
})

test('a member that left the group is removed', () => {
  assert.deepEqual(decide(open, ['a'], told(5, 'a', 'b'), true, false), {
    kind: 'remove',
    pairs: ['b'],
  })
})

test('a session that ended is closed, and none is opened without members', () => {
  assert.deepEqual(decide(closed, ['a'], told(4, 'a'), true, false), { kind: 'close' })
  assert.equal(decide(open, [], null, true, false), null)
})

test('a site whose session ended before another one was named as the writer is told of it', () => {
  assert.deepEqual(decide(closed, [], null, true, true), { kind: 'close' })
})

test('an agent whose link stays down although its peer is heard is told the address again', () => {
  const cut = { ...told(5, 'a'), link: 'down' as const }
  assert.deepEqual(decide(open, ['a'], cut, true, false), { kind: 'redial' })
  assert.equal(decide(open, ['a'], cut, false, false), null)
  assert.equal(decide({ state: 'failed_over', epoch: 5 }, ['a'], cut, true, false), null)
})

test('a chore ends when what it was to end is not there, and waits for what may come back', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-chores-'))
  const log = createLog('test', 'silent')
  const store = await openStore({ url: `sqlite:${join(directory, 'state.db')}`, clock, log })
  t.after(async () => {
    await store.close()
    rmSync(directory, { recursive: true, force: true })
  })
  const answers = [
    ['backup.cancel', 'WORK_UNKNOWN'],
    ['restore.cancel', 'WORK_UNKNOWN'],
    ['backup.cancel', 'NO_VAULT'],
    ['vault.detach', 'NO_VAULT'],
    ['volume.delete', 'VOLUME_UNKNOWN'],
    // A restore that such a site has noted goes on when its vault is back.
    ['restore.cancel', 'NO_VAULT'],
    ['volume.delete', 'VOLUME_BUSY'],
  ] as const
  await store.write(async (tx) => {
    for (const [command, refusal] of answers) {
      await addChore(tx, { site: 'az1', command, request: { refusal } }, 1)
    }
  })
  const command = async (_site: string, _name: string, { refusal }: { refusal: string }) => {
    throw new Fault(SITE_REFUSED, refusal, { refusal })
  }
  const reconciler = createReconciler({
    store,
    clock,
    log,
    siteNames: ['az1'],
    sites: { command } as unknown as ReconcilerOptions['sites'],
    agents: { heard: () => true } as unknown as ReconcilerOptions['agents'],
    witness: {} as ReconcilerOptions['witness'],
  })
  await reconciler.round()
  const left = await listChores(store.db, 'az1')
  assert.deepEqual(
    left.map((chore) => chore.command),
    ['restore.cancel', 'volume.delete'],
  )
})
