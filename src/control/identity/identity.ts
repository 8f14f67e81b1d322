import type { Clock } from '#base/clock.ts'
import type { Store } from '#control/store/store.ts'
import type { Authenticator } from './authenticator.ts'
import { createLogins, type Logins } from './login.ts'
import { createManagement, type Management } from './manage.ts'
import type { Passwords } from './passwords.ts'
import type { SecretBox } from './secret-box.ts'
import { createAuthenticator } from './verify.ts'

/** Who may do what: all that the API asks about people and their keys. */
export interface Identity {
  readonly authenticator: Authenticator
  readonly logins: Logins
  readonly management: Management
}

export function createIdentity(options: {
  readonly store: Store
  readonly clock: Clock
  readonly passwords: Passwords
  readonly box: SecretBox
  readonly tokenLifetimeMs: number
}): Identity {
  return {
    authenticator: createAuthenticator(options),
    logins: createLogins(options),
    management: createManagement(options),
  }
}
