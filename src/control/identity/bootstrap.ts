import { randomBytes } from 'node:crypto'
import type { Clock } from '#base/clock.ts'
import { newHexId } from '#base/ids.ts'
import type { Store } from '#control/store/store.ts'
import { insertAccessKey, newAccessKeyId } from './manage.ts'
import type { Passwords } from './passwords.ts'
import type { SecretBox } from './secret-box.ts'

/** The first administrator, with the secrets that nobody can read again. */
export interface Administrator {
  readonly domain: string
  readonly user: string
  readonly password: string
  /** 32 hex characters. */
  readonly project_id: string
  readonly project_name: string
  readonly access_key: string
  readonly secret_key: string
}

/** A new administrator for `region`, with secrets from the system's randomness. */
export const newAdministrator = (region: string): Administrator => ({
  domain: 'holdfast',
  user: 'admin',
  password: randomBytes(18).toString('base64url'),
  project_id: newHexId(),
  project_name: region,
  access_key: newAccessKeyId(),
  secret_key: randomBytes(30).toString('base64url'),
})

/**
 * Gives an empty database its domain, a project named after the region (clients derive the region from that
 * name), and an administrator of the domain with an access key. Returns the administrator if it was made now, null when
 * the database has users already. One transaction: a crash leaves all of it or nothing.
 */
export async function bootstrapIdentity(options: {
  readonly store: Store
  readonly clock: Clock
  readonly passwords: Passwords
  readonly box: SecretBox
  readonly region: string
  /** Secrets that were made before the start; left out: made here. */
  readonly administrator?: Administrator
}): Promise<Administrator | null> {
  const { store, clock, passwords, box, region } = options
  const hasUsers = async () =>
    (await store.db.selectFrom('users').select('id').limit(1).executeTakeFirst()) !== undefined
  if (await hasUsers()) return null
  const administrator = options.administrator ?? newAdministrator(region)
  const password_hash = await passwords.hash(administrator.password)
  return await store.write(async (tx) => {
    // Another control plane on the same database may have been faster.
    const first = await tx.selectFrom('users').select('id').limit(1).executeTakeFirst()
    if (first !== undefined) return null
    const nowMs = clock.wallMs()
    const domain = newHexId()
    const user = newHexId()
    await tx
      .insertInto('domains')
      .values({ id: domain, name: administrator.domain, created_at: nowMs })
      .execute()
    await tx
      .insertInto('projects')
      .values({
        id: administrator.project_id,
        domain,
        name: administrator.project_name,
        description: `First project of region ${region}`,
        enabled: 1,
        created_at: nowMs,
      })
      .execute()
    await tx
      .insertInto('users')
      .values({
        id: user,
        domain,
        name: administrator.user,
        enabled: 1,
        password_hash,
        password_changed_at: nowMs,
        default_project: administrator.project_id,
        created_at: nowMs,
      })
      .execute()
    await tx
      .insertInto('role_grants')
      .values({
        user_id: user,
        scope: 'domain',
        scope_id: domain,
        role: 'admin',
        created_at: nowMs,
      })
      .execute()
    await insertAccessKey(tx, box, {
      id: administrator.access_key,
      secret: administrator.secret_key,
      user,
      project: null,
      description: 'Made with the installation',
      nowMs,
    })
    return administrator
  })
}
