import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import { connectNbd, type NbdAddress } from '#client/nbd/client.ts'
import { NBD_REFUSED } from '#client/nbd/faults.ts'
import { isFault } from '#base/fault.ts'
import { repeated } from '#agent/backup/backups.contract.ts'
import { Lab } from '../lab.ts'
import { agentCommand } from '../support/agent-command.ts'

/* Exports over TCP: a certificate that the API issued opens the volumes of its project at both sites, and no others. */

interface Connection {
  readonly export: string
  readonly tcp: { readonly host: string; readonly port: number; readonly ca: string }
}

interface Issued {
  readonly cert: string
  readonly key: string
}

let lab: Lab
before(async () => {
  lab = await Lab.start()
})
after(() => lab.close())

async function address(volume: string, issued: Issued | undefined): Promise<[NbdAddress, string]> {
  const { tcp, export: exportName } = await lab.ok<Connection>(
    200,
    'GET',
    `/api/v1/volumes/${volume}/connection`,
  )
  const tls = { ca: tcp.ca, ...(issued && { cert: issued.cert, key: issued.key }) }
  return [{ host: tcp.host, port: tcp.port, tls }, exportName]
}

test('a certificate of the project opens its volume over TLS', async () => {
  const volume = await lab.volume(1)
  const issued = await lab.ok<Issued>(201, 'POST', '/api/v1/nbd-credentials', {})
  const [at, exportName] = await address(volume, issued)
  const client = await connectNbd(at, { exportName })
  await client.write(4096, Buffer.from('holdfast'), { fua: true })
  assert.equal((await client.read(4096, 8)).toString(), 'holdfast')
  await client.disconnect()
})

test('without a certificate, or with one of another project, no export opens', async () => {
  const volume = await lab.volume(1)
  const [bare, exportName] = await address(volume, undefined)
  await assert.rejects(connectNbd(bare, { exportName }))

  const { project } = await lab.ok<{ project: { id: string } }>(
    201,
    'POST',
    '/api/v1/identity/projects',
    { name: 'local-1_other' },
  )
  const token = await lab.login(project.id)
  const foreign = await lab.call<Issued>('POST', '/api/v1/nbd-credentials', {}, token)
  assert.equal(foreign.status, 201)
  const [at] = await address(volume, foreign.body)
  await assert.rejects(connectNbd(at, { exportName }), (error) => isFault(error, NBD_REFUSED))
})

test('a checkpoint that is attached opens for its owner only, over TLS', async () => {
  const volume = await lab.volume(1)
  const issued = await lab.ok<Issued>(201, 'POST', '/api/v1/nbd-credentials', {})
  const [at, exportName] = await address(volume, issued)
  const client = await connectNbd(at, { exportName })
  await client.write(4096, Buffer.from('holdfast'), { fua: true })
  await client.disconnect()
  const request = {
    backup: randomUUID(),
    volumes: [volume],
    names: [volume],
    parent: null,
    labels: {},
    rate_bytes: 0,
  }
  const { checkpoint } = await repeated(() =>
    agentCommand(lab.data, 'az1-agent', 'backup.start', request),
  )
  const attach = async (owner: string) =>
    await agentCommand(lab.data, 'az1-agent', 'vault.attach', {
      checkpoint: checkpoint ?? '',
      owner,
    })
  const { exports } = await attach('somebody-else')
  const [{ name } = { name: '' }] = exports
  await assert.rejects(connectNbd(at, { exportName: name }), (error) => isFault(error, NBD_REFUSED))
  await attach(lab.credentials.project_id)
  const reader = await connectNbd(at, { exportName: name })
  assert.equal((await reader.read(4096, 8)).toString(), 'holdfast')
  await reader.disconnect()
})
