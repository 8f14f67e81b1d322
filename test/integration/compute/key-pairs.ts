/** Key pairs: imported ones, and those that are made here. */
import assert from 'node:assert/strict'
import { createPrivateKey, createPublicKey, createSign, createVerify } from 'node:crypto'
import { test } from 'node:test'
import { type ComputeCalls, version } from './compute-calls.ts'

const PUBLIC_KEY =
  'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9H2x0Tj0Qm4nD1iYQ0xJw0x2J9b7e8w6y5v4u3t2s1 me@here'

export function testKeyPairs({ of, call, ok, get }: ComputeCalls): void {
  test('a key pair is imported, shown, refused a second time and deleted, with the statuses of the version', async () => {
    const url = `/v2.1/${of().project}/os-keypairs`
    const keypair = { name: 'mine', public_key: PUBLIC_KEY }
    const made = await ok('POST', url, { keypair }, 200)
    assert.match(made.keypair.fingerprint, /^([0-9a-f]{2}:){15}[0-9a-f]{2}$/)
    assert.equal(made.keypair.private_key, undefined)
    assert.equal((await call('POST', url, { keypair })).status, 409)
    await ok('POST', url, { keypair: { ...keypair, name: 'other' } }, 201, version('2.10'))
    const { keypairs } = await get(url)
    assert.deepEqual(
      keypairs.map((one: { keypair: { name: string } }) => one.keypair.name),
      ['mine', 'other'],
    )
    assert.equal((await get(`${url}/mine`)).keypair.public_key, PUBLIC_KEY)
    await ok('DELETE', `${url}/mine`, undefined, 202)
    await ok('DELETE', `${url}/other`, undefined, 204, version('2.10'))
    assert.equal((await call('GET', `${url}/mine`)).status, 404)
    assert.equal((await call('DELETE', `${url}/mine`)).status, 404)
    for (const bad of [
      { name: 'x', public_key: 'ssh-rsa nonsense' },
      { name: 'x', public_key: `${PUBLIC_KEY}\nssh-rsa AAAA` },
      { name: '', public_key: PUBLIC_KEY },
      { name: 'x/y', public_key: PUBLIC_KEY },
      { name: 'x', public_key: PUBLIC_KEY, type: 'x509' },
      { name: 5 },
    ]) {
      assert.equal((await call('POST', url, { keypair: bad })).status, 400, JSON.stringify(bad))
    }
  })

  test('a key pair that is made here fits together, and its private half is told once', async () => {
    const url = `/v2.1/${of().project}/os-keypairs`
    const { keypair } = await ok('POST', url, { keypair: { name: 'made', public_key: null } })
    const [type, text] = keypair.public_key.split(' ') as [string, string]
    assert.equal(type, 'ssh-rsa')
    const blob = Buffer.from(text, 'base64')
    const fields: Buffer[] = []
    for (let at = 0; at < blob.length; ) {
      const length = blob.readUInt32BE(at)
      fields.push(blob.subarray(at + 4, at + 4 + length))
      at += 4 + length
    }
    const [, exponent, modulus] = fields
    assert.ok(exponent !== undefined && modulus !== undefined)
    const number = (bytes: Buffer) => bytes.subarray(bytes[0] === 0 ? 1 : 0).toString('base64url')
    const jwk = { kty: 'RSA', e: number(exponent), n: number(modulus) }
    const sign = createSign('sha256').update('text')
    const signature = sign.sign(createPrivateKey(keypair.private_key as string))
    const verify = createVerify('sha256').update('text')
    assert.ok(verify.verify(createPublicKey({ key: jwk, format: 'jwk' }), signature))
    assert.equal((await get(`${url}/made`)).keypair.private_key, undefined)
  })
}
