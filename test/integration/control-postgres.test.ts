import assert from 'node:assert/strict'
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { resolveOptions } from '#base/config.ts'
import { newHexId } from '#base/ids.ts'
import { controlConfig, controlOptions } from '#control/config.ts'
import { startControl } from '#control/control.ts'
import { startPostgres } from '../support/postgres.ts'
import { makeCertificates } from '../support/region-parts.ts'

const postgres = await startPostgres()
const options = { timeout: 60_000, ...('missing' in postgres ? { skip: postgres.missing } : {}) }

/** Two whole control planes on one PostgreSQL. */
test(
  'what one control plane was told the other one knows, and each stops without the other',
  options,
  async (t) => {
    assert.ok(!('missing' in postgres))
    t.after(() => postgres.stop())
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-control-'))
    t.after(() => rm(directory, { recursive: true, force: true }))
    await makeCertificates(directory)
    const database = await postgres.database('holdfast')
    const administrator = {
      domain: 'holdfast',
      user: 'admin',
      password: 'a password for tests',
      project_id: newHexId(),
      project_name: 'local-1',
      access_key: 'ACCESSKEYFORTESTS123',
      secret_key: 'secret key for tests',
    }
    const bootstrapFile = join(directory, 'bootstrap.json')
    await writeFile(bootstrapFile, JSON.stringify(administrator))
    const start = async (name: string) => {
      const dataDir = join(directory, name)
      const values = resolveOptions(controlOptions, {
        flags: {
          region: 'local-1',
          sites: 'az1,az2',
          dataDir,
          listen: '127.0.0.1:0',
          internalListen: '127.0.0.1:0',
          database,
          bootstrapFile,
          'pki.ca': join(directory, 'ca.crt'),
          'pki.cert': join(directory, 'control.crt'),
          'pki.key': join(directory, 'control.key'),
          logLevel: 'fatal',
        },
      })
      return await startControl(controlConfig(values))
    }
    const one = await start('one')
    // Access keys are sealed with a key that all of them have to hold.
    await mkdir(join(directory, 'two'))
    await copyFile(join(directory, 'one', 'identity.key'), join(directory, 'two', 'identity.key'))
    const two = await start('two')

    const { user: name, password, project_id: id } = administrator
    const body = {
      auth: {
        identity: {
          methods: ['password'],
          password: { user: { name, password, domain: { name: administrator.domain } } },
        },
        scope: { project: { id } },
      },
    }
    const login = await fetch(`${one.url}/v3/auth/tokens`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    assert.equal(login.status, 201, await login.text())
    const token = login.headers.get('x-subject-token') ?? ''
    const volumes = (url: string) =>
      fetch(`${url}/v2/${id}/volumes`, { headers: { 'x-auth-token': token } })
    assert.equal((await volumes(two.url)).status, 200)
    await one.close()
    assert.equal((await volumes(two.url)).status, 200)
    const health = await fetch(`${two.url}/api/v1/health`)
    assert.equal(health.status, 200)
    await two.close()
    await two.close()
    await assert.rejects(fetch(`${two.url}/api/v1/health`))
  },
)
