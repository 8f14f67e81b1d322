import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createLog } from '#base/log.ts'
import { systemClock as clock } from '#base/system/clock.ts'
import { newId } from '#base/ids.ts'
import {
  GROUP_TYPE,
  insertCheckpoint,
  insertItem,
  SERVER_TYPE,
  VOLUME_TYPE,
} from '#control/resources/checkpoints.ts'
import { insertRestore } from '#control/resources/restores.ts'
import { toJson } from '#control/store/json.ts'
import { openStore } from '#control/store/open.ts'
import {
  disksOfPairs,
  groupRow,
  insertRows,
  pairRow,
} from '../../../../../test/support/group-rows.ts'
import { operationRow } from '../../../../../test/support/operation-rows.ts'
import { Fault } from '#base/fault.ts'
import { SITE_REFUSED } from '#control/sites/client.ts'
import { type StepContext, StepWaits } from '../../operation.ts'
import { type DeleteVolume, deleteVolume } from '../volumes/volumes.ts'
import { checkpointRow, itemRow, nameOperation } from './backup-rows.ts'
import { letBackupsEnd, letRestoresEnd } from './backup-turns.ts'
import { beginLog, endLog } from './backup-work.ts'

/** A group with one pair, without a session, and a run of which items may have begun. */
async function lab(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-turns-'))
  const log = createLog('test', 'silent')
  const store = await openStore({ url: `sqlite:${join(directory, 'state.db')}`, clock, log })
  t.after(async () => {
    await store.close()
    rmSync(directory, { recursive: true, force: true })
  })
  const group = groupRow('p')
  const pair = pairRow(group, 1)
  const volumes = disksOfPairs(group, [pair])
  await insertRows(store, { protection_groups: [group], replication_pairs: [pair], volumes })
  const plan = { id: 'plan', name: 'plan', provider_id: 'vault', resources: [] }
  const checkpoint = checkpointRow({ project: 'p', provider: 'vault', plan, planId: null }, 1)
  await store.write((tx) => insertCheckpoint(tx, checkpoint))

  async function item(resource: string, operation: string): Promise<void> {
    const row = itemRow(
      {
        checkpoint,
        resource: { type: GROUP_TYPE, id: resource, name: 'one', az: 'az1' },
        name: null,
        description: null,
        policy: null,
        scheduled: false,
        sizeMb: 1,
        backupData: {},
        address: null,
      },
      1,
    )
    await store.write(async (tx) => {
      await insertItem(tx, row)
      await nameOperation(tx, row.id, operation)
    })
  }
  const begin = (operation: string) =>
    store.write((tx) =>
      beginLog(
        tx,
        operation,
        { project: 'p', operation_type: 'protect', checkpoint: checkpoint.id },
        1,
      ),
    )
  async function restore(...keys: string[]): Promise<string> {
    const id = newId()
    const statuses = Object.fromEntries(keys.map((key) => [key, 'restoring']))
    await store.write((tx) =>
      insertRestore(tx, {
        id,
        project: 'p',
        provider: 'vault',
        checkpoint: checkpoint.id,
        item: null,
        status: 'in_progress',
        target: null,
        parameters: '{}',
        resources_status: toJson(statuses),
        resources_reason: '{}',
        created_at: 1,
        updated_at: 1,
      }),
    )
    return id
  }
  const beginRestore = (operation: string, of: string) =>
    store.write((tx) => {
      const entry = { project: 'p', operation_type: 'restore', checkpoint: null, restore: of }
      return beginLog(tx, operation, entry, 1)
    })
  return {
    store,
    group,
    item,
    begin,
    restore,
    beginRestore,
    endRestore: (operation: string) => store.write((tx) => endLog(tx, operation, 'fail', null, 2)),
    volume: pair.source_volume,
    backups: (resource: string, ...of: string[]) =>
      store.write((tx) => letRestoresEnd(tx, resource, of)),
    restores: () => store.write((tx) => letBackupsEnd(tx, [pair.source_volume])),
  }
}

test('a restore waits for the backup of the group that its disk is in, although no session runs', async (t) => {
  const { group, item, begin, restores } = await lab(t)
  await item(group.id, 'own')
  await restores()
  await begin('own')
  await assert.rejects(restores(), StepWaits)
})

test('a backup that stands in a queue is waited for by nobody, although another one of its run has begun', async (t) => {
  const { group, item, begin, restores } = await lab(t)
  await item('another', 'first')
  await item(group.id, 'second')
  await begin('first')
  await restores()
  await begin('second')
  await assert.rejects(restores(), StepWaits)
})

test('a backup of a server or of its group waits for the restore of one of their disks, and for no other', async (t) => {
  const { group, volume, backups, restore, beginRestore, endRestore } = await lab(t)
  const one = await restore(`${VOLUME_TYPE}#${volume}`)
  // It stands in a queue itself.
  await backups('server', volume)
  await beginRestore('first', one)
  await assert.rejects(backups('server', volume), StepWaits)
  await assert.rejects(backups(group.id, volume), StepWaits)
  await backups('server', 'another')
  // However it ends.
  await endRestore('first')
  await backups('server', volume)
})

test('a backup of a group waits while one of its servers is restored, and a server while its group is', async (t) => {
  const { group, volume, backups, restore, beginRestore, endRestore } = await lab(t)
  await beginRestore('whole', await restore(`${GROUP_TYPE}#${group.id}`))
  await assert.rejects(backups('server', volume), StepWaits)
  await endRestore('whole')
  await beginRestore('server', await restore(`${SERVER_TYPE}#server`))
  await assert.rejects(backups('server', volume), StepWaits)
  await backups('another', volume)
})

test('the deletion of a disk waits for the backup that reads it and the restore that writes it, and for nothing else that refuses it', async (t) => {
  const { store } = await lab(t)
  const [backup, restore] = [
    { kind: 'backup.server', input: '{}' },
    { kind: 'backup.restore', input: toJson({ disks: [{ name: 'x', volume: 'written' }] }) },
  ].map((over, at) => operationRow({ project: 'p', ordinal: at, status: 'running', ...over }))
  assert.ok(backup !== undefined && restore !== undefined)
  const choose = toJson({ sources: [{ volumes: ['copy'] }, { volumes: ['read'] }] })
  const chosen = { operation: backup.id, step: 0, name: 'choose', result: choose, end_at: 1 }
  await store.write(async (tx) => {
    await tx.insertInto('operations').values([backup, restore]).execute()
    await tx.insertInto('operation_steps').values(chosen).execute()
  })
  const deletion = (volume: string, refusal: string) => {
    const command = () => Promise.reject(new Fault(SITE_REFUSED, 'deleting', { refusal }))
    const services = { store, sites: { command } }
    const ctx = { services, resourceId: volume, input: { az: 'az1' } }
    return deleteVolume.steps[0]?.act(ctx as unknown as StepContext<DeleteVolume>)
  }
  const refused = /the site refused|SITE_REFUSED/i
  for (const volume of ['copy', 'read']) {
    await assert.rejects(async () => deletion(volume, 'VOLUME_HAS_SNAPSHOTS'), StepWaits)
  }
  await assert.rejects(async () => deletion('written', 'VOLUME_BUSY'), StepWaits)
  await assert.rejects(async () => deletion('written', 'VOLUME_FAILED'), refused)
  await assert.rejects(async () => deletion('other', 'VOLUME_HAS_SNAPSHOTS'), refused)
  await store.write((tx) => tx.updateTable('operations').set({ status: 'failed' }).execute())
  await assert.rejects(async () => deletion('read', 'VOLUME_HAS_SNAPSHOTS'), refused)
})
