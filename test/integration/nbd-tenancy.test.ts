import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { connectNbd, type NbdAddress } from '#client/nbd/client.ts'
import { NBD_REFUSED } from '#client/nbd/faults.ts'
import { isFault } from '#base/fault.ts'
import { Lab } from '../lab.ts'

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
