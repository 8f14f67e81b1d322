import { createHash, generateKeyPair } from 'node:crypto'
import { promisify } from 'node:util'
import { assert } from '#base/assert.ts'

/* Public keys as OpenSSH writes them: `ssh-rsa AAAA... comment`. The middle is a list of length-prefixed fields whose first one repeats
 * the type. */

const TYPES: ReadonlySet<string> = new Set([
  'ssh-rsa',
  'ssh-dss',
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'sk-ssh-ed25519@openssh.com',
  'sk-ecdsa-sha2-nistp256@openssh.com',
])

export const PUBLIC_KEY_CHARACTERS_MAX = 16_384

/** MD5 with colons, which is what clients of this API show; null: it is no public key. */
export function fingerprintOf(line: string): string | null {
  const [type = '', text = ''] = line.trim().split(/\s+/)
  if (!TYPES.has(type) || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return null
  const blob = Buffer.from(text, 'base64')
  if (blob.length < 4) return null
  const length = blob.readUInt32BE(0)
  if (blob.subarray(4, 4 + length).toString('latin1') !== type) return null
  const digest = createHash('md5').update(blob).digest('hex')
  return digest.match(/../g)?.join(':') ?? null
}

export interface KeyPair {
  readonly publicKey: string
  /** PEM. Told once and stored nowhere. */
  readonly privateKey: string
}

const RSA_BITS = 2048
const generate = promisify(generateKeyPair)

export async function newKeyPair(comment: string): Promise<KeyPair> {
  const pair = await generate('rsa', {
    modulusLength: RSA_BITS,
    publicExponent: 0x10001,
    publicKeyEncoding: { type: 'pkcs1', format: 'der' },
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
  })
  const [modulus, exponent] = integersOf(pair.publicKey)
  assert(modulus !== undefined && exponent !== undefined, 'an RSA key has two numbers')
  const blob = Buffer.concat([field(Buffer.from('ssh-rsa')), field(exponent), field(modulus)])
  return {
    publicKey: `ssh-rsa ${blob.toString('base64')} ${comment}`,
    privateKey: pair.privateKey,
  }
}

function field(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

/** The integers of a DER sequence, with the leading zero that both forms use for positive ones. */
function integersOf(der: Buffer): Buffer[] {
  const found: Buffer[] = []
  let at = lengthAt(der, 1).next
  while (at < der.length) {
    assert(der[at] === 2, 'the parts of an RSA key are integers')
    const { length, next } = lengthAt(der, at + 1)
    found.push(der.subarray(next, next + length))
    at = next + length
  }
  return found
}

function lengthAt(der: Buffer, at: number): { length: number; next: number } {
  const first = der[at] ?? 0
  if (first < 0x80) return { length: first, next: at + 1 }
  const bytes = first & 0x7f
  return { length: der.readUIntBE(at + 1, bytes), next: at + 1 + bytes }
}
