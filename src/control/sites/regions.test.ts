/** What another region answers, and what it is taken for. */
import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import Type from 'typebox'
import { isFault } from '#base/fault.ts'
import { createRegionClient, type RegionClient } from './regions.ts'

let directory = ''
let server: Server
let client: RegionClient
/** Statuses of the next answers; 201 and 200 when there are no more. */
let logins: number[] = []
let calls: number[] = []
let seen: string[] = []

const credentials = (more: object = {}) =>
  JSON.stringify({
    region: 'r2',
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    domain: 'd',
    user: 'u',
    password: 'p',
    ...more,
  })
const file = () => join(directory, 'r2.json')

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-regions-'))
  server = createServer((request, response) => {
    const isLogin = request.url === '/v3/auth/tokens'
    seen.push(isLogin ? 'login' : String(request.headers['x-auth-token']))
    const status = (isLogin ? logins : calls).shift() ?? (isLogin ? 201 : 200)
    const count = seen.filter((one) => one === 'login').length
    response.writeHead(status, isLogin ? { 'x-subject-token': `token-${count}` } : {})
    response.end('{"it":"is"}')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  client = createRegionClient([{ name: 'r2', file: file() }], () => 0)
})
after(async () => {
  await client.close()
  server.close()
  server.closeAllConnections()
  await rm(directory, { recursive: true, force: true })
})
beforeEach(async () => {
  await writeFile(file(), credentials())
  logins = []
  calls = []
  seen = []
})

const ask = (project: string) =>
  client.call({
    region: 'r2',
    project,
    method: 'POST',
    path: '/there',
    body: {},
    answer: Type.Object({ it: Type.Literal('is') }),
  })
const refusedWith = (code: string) => (error: unknown) => isFault(error) && error.code === code

test('a login that fails for want of strength is tried again later, and only a word about rights is a denial', async () => {
  for (const status of [500, 502, 503, 429, 408]) {
    logins = [status]
    await assert.rejects(ask(`p${status}`), refusedWith('REGION_UNREACHABLE'), String(status))
    calls = [status]
    await assert.rejects(ask(`p${status}`), refusedWith('REGION_UNREACHABLE'), String(status))
  }
  for (const status of [401, 403]) {
    logins = [status]
    await assert.rejects(ask(`p${status}`), refusedWith('REGION_DENIED'))
    calls = [status]
    await assert.rejects(ask(`p${status}`), refusedWith('REGION_DENIED'))
  }
  logins = [400]
  await assert.rejects(ask('p400'), refusedWith('REGION_REFUSED'))
  assert.deepEqual(await ask('p400'), { it: 'is' })
})

test('a token that was taken back is made anew, once', async () => {
  await ask('back')
  calls = [401]
  assert.deepEqual(await ask('back'), { it: 'is' })
  assert.deepEqual(seen, ['login', 'token-1', 'token-1', 'login', 'token-2'])
  calls = [401, 401]
  await assert.rejects(ask('back'), refusedWith('REGION_DENIED'))
})

test('a list of projects says whose backups go where; without one the account decides', async () => {
  assert.equal(await client.mayCopy('r2', 'a', 'b'), true)
  await writeFile(file(), credentials({ copies: [{ from: 'a', to: ['b', 'c'] }] }))
  assert.equal(await client.mayCopy('r2', 'a', 'c'), true)
  assert.equal(await client.mayCopy('r2', 'a', 'd'), false)
  assert.equal(await client.mayCopy('r2', 'x', 'b'), false)
  await assert.rejects(client.mayCopy('r3', 'a', 'b'), refusedWith('REGION_UNKNOWN'))
})
