import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'
import { dirname } from 'node:path'
import { Fault, fault } from '#base/fault.ts'
import { ensureDirectory, readTextIfPresent, writeFileWhole } from '#base/system/files.ts'

/* Secrets of access keys must be read back to check signatures, so they cannot be hashed. They are stored encrypted
 * (AES-256-GCM) under a key that is not in the database: a copy of the database alone signs nothing.
 *
 *   sealed text   1:KEYID:NONCE:CIPHERTEXT+TAG      KEYID names the key (8 hex), the others are base64url
 *
 * The name of the access key is authenticated with it, so a sealed secret cannot be moved to another key.
 */

export interface SecretBox {
  seal(secret: string, name: string): string
  /** Faults: SECRET_KEY_WRONG. */
  open(sealed: string, name: string): string
}

export const SECRET_KEY_WRONG = fault({
  code: 'SECRET_KEY_WRONG',
  retry: 'never',
  text: 'The secret of an access key cannot be read with the key file of this control plane.',
  hint: 'Put back identity.key of the installation that the database comes from, or make new access keys.',
})
export const SECRET_KEY_UNREADABLE = fault({
  code: 'SECRET_KEY_UNREADABLE',
  retry: 'never',
  text: 'The key file does not hold 64 hex characters.',
  hint: 'Restore identity.key from a backup. Without it the access keys have to be made anew.',
})

const KEY_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16

export function secretBox(key: Uint8Array): SecretBox {
  const keyId = createHash('sha256').update(key).digest('hex').slice(0, 8)
  return {
    seal(secret, name) {
      const nonce = randomBytes(NONCE_BYTES)
      const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(name))
      const body = Buffer.concat([
        cipher.update(secret, 'utf8'),
        cipher.final(),
        cipher.getAuthTag(),
      ])
      return ['1', keyId, nonce.toString('base64url'), body.toString('base64url')].join(':')
    },
    open(sealed, name) {
      const [version, sealedBy, nonce = '', text = ''] = sealed.split(':')
      const wrong = (cause?: unknown) =>
        new Fault(SECRET_KEY_WRONG, `reading the secret of ${name}`, { name }, cause)
      if (version !== '1' || sealedBy !== keyId) throw wrong()
      const body = Buffer.from(text, 'base64url')
      const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(nonce, 'base64url'))
        .setAAD(Buffer.from(name))
        .setAuthTag(body.subarray(body.length - TAG_BYTES))
      try {
        const secret = decipher.update(body.subarray(0, body.length - TAG_BYTES))
        return Buffer.concat([secret, decipher.final()]).toString('utf8')
      } catch (error) {
        throw wrong(error)
      }
    },
  }
}

/** The box of the key file at `path` (mode 0600), which is made when it is missing. */
export async function openSecretBox(path: string): Promise<SecretBox> {
  let text = await readTextIfPresent(path)
  if (text === undefined) {
    text = `${randomBytes(KEY_BYTES).toString('hex')}\n`
    await ensureDirectory(dirname(path), 0o700)
    await writeFileWhole(path, text, 0o600)
  }
  if (!/^[0-9a-f]{64}\n?$/.test(text)) {
    throw new Fault(SECRET_KEY_UNREADABLE, `reading ${path}`, { path })
  }
  return secretBox(Buffer.from(text.trim(), 'hex'))
}
