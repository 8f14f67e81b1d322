/** Backups of a volume that two sites replicate: read at either side, restored through the session that writes it. */
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { openVaultAt, repeated } from '#agent/backup/backups.contract.ts'
import type { BackupInfo } from '#wire/site/backups.ts'
import { Region } from '../support/region.ts'

const MIB = 1024 * 1024

let directory = ''
let region: Region
let volume = ''
let replica = ''
let pair = ''
const place = () => join(directory, 'vault')
const keyFile = () => join(directory, 'vault.key')

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hf-vault-'))
  await writeFile(keyFile(), randomBytes(32))
  region = await Region.start({
    agent: { 'vault.place': place(), 'vault.keyFile': keyFile() },
  })
  volume = await region.volume('data')
  const group = await region.group()
  pair = await region.pair(group, volume)
  await region.act(group, 'start-server-group')
  await region.inSync(pair)
  const shown = await region.showPair(pair)
  replica =
    String(shown.volume_ids)
      .split(',')
      .find((id) => id !== volume) ?? ''
})
after(async () => {
  await region.stop()
  await rm(directory, { recursive: true, force: true })
})

async function write(offset: number, bytes: Buffer): Promise<void> {
  const client = await region.nbd('az1', pair)
  await client.write(offset, bytes)
  await client.disconnect()
}

async function backUp(site: string, of: string, parent: string | null): Promise<BackupInfo> {
  const request = {
    backup: randomUUID(),
    volumes: [of],
    names: [volume],
    parent,
    labels: {},
    rate_bytes: 0,
  }
  const info = await repeated(() => region.plane.sites.command(site, 'backup.start', request))
  assert.equal(info.state, 'done', info.reason ?? '')
  return info
}

async function holds(checkpoint: string | null, offset: number, bytes: Buffer): Promise<boolean> {
  const vault = await openVaultAt(place(), keyFile())
  const found = await vault.checkpoint(checkpoint ?? '')
  return (await found.read(volume, offset, bytes.length)).equals(bytes)
}

test('increments follow each other from side to side, and a restore reaches both', async () => {
  const one = randomBytes(MIB)
  const two = randomBytes(MIB)
  await write(4 * MIB, one)
  const atReplica = await backUp('az2', replica, null)
  assert.equal(atReplica.manner, 'full')
  assert.ok(await holds(atReplica.checkpoint, 4 * MIB, one))

  await write(4 * MIB + 512, two)
  const atWriter = await backUp('az1', volume, atReplica.checkpoint)
  // What this side's copy has seen since a backup of the other side, nobody counted.
  assert.equal(atWriter.manner, 'scan')
  assert.ok(await holds(atWriter.checkpoint, 4 * MIB + 512, two))

  await write(900 * MIB, one)
  const request = {
    restore: randomUUID(),
    checkpoint: atReplica.checkpoint ?? '',
    volumes: [{ name: volume, volume, pair, blank: false }],
    rate_bytes: 0,
  }
  const { sites } = region.plane
  await assert.rejects(
    sites.command('az2', 'restore.start', {
      ...request,
      volumes: [{ name: volume, volume: replica, pair, blank: false }],
    }),
    /NOT_WRITER/,
  )
  const restored = await repeated(() => sites.command('az1', 'restore.start', request))
  assert.equal(restored.state, 'done', restored.reason ?? '')
  assert.equal(restored.verified, true)
  const client = await region.nbd('az1', pair)
  assert.ok((await client.read(4 * MIB, MIB)).equals(one))
  assert.ok((await client.read(900 * MIB, MIB)).equals(Buffer.alloc(MIB)))
  await client.disconnect()

  // What the restore wrote came to the replica as any other write, and was counted there.
  const after = await backUp('az2', replica, atReplica.checkpoint)
  assert.equal(after.manner, 'changes')
  assert.ok(await holds(after.checkpoint, 4 * MIB, one))
  assert.ok(await holds(after.checkpoint, 900 * MIB, Buffer.alloc(MIB)))
})
