import type { Bit } from '../bit.ts'

/** Who may do what where; the rules are in src/control/identity. */
export interface IdentityTables {
  domains: DomainRow
  projects: ProjectRow
  users: UserRow
  role_grants: RoleGrantRow
  access_keys: AccessKeyRow
  tokens: TokenRow
  used_signatures: UsedSignatureRow
}

/** The tenant above projects and users. An installation has one. */
export interface DomainRow {
  /** 32 hex characters, as all ids here. */
  id: string
  name: string
  created_at: number
}

export interface ProjectRow {
  id: string
  domain: string
  /** Unique in its domain. */
  name: string
  description: string
  enabled: Bit
  created_at: number
}

export interface UserRow {
  id: string
  domain: string
  /** Unique in its domain. */
  name: string
  enabled: Bit
  /** argon2id in PHC form: algorithm, costs and salt are inside. */
  password_hash: string
  password_changed_at: number
  /** Scope of a login that names none; null: such a login is unscoped. */
  default_project: string | null
  created_at: number
}

/** At most one role for each user and scope; a role includes the weaker ones. */
export interface RoleGrantRow {
  user_id: string
  /** `project` or `domain`; a role on the domain holds in every project of it. */
  scope: string
  scope_id: string
  /** `admin`, `operator` or `reader`. */
  role: string
  created_at: number
}

export interface AccessKeyRow {
  /** 20 capitals and digits, shown to everybody. */
  id: string
  user_id: string
  /** The only project it may act in; null: wherever its user may. */
  project: string | null
  description: string
  /** Encrypted: signatures can only be checked with the secret itself. See src/control/identity/secret-box.ts. */
  sealed_secret: string
  enabled: Bit
  created_at: number
}

/** Valid tokens. Revoking one deletes its row. */
export interface TokenRow {
  /** SHA-256 of the token, hex; the token itself is nowhere. */
  hash: string
  /** Names the token in answers and logs without being able to act as it. */
  audit_id: string
  /** Audit id of the token that this one was made from; null: made from a password. */
  parent: string | null
  user_id: string
  /** `project`, `domain` or `none`. */
  scope: string
  scope_id: string | null
  /** JSON array: how its holder proved who they are. */
  methods: string
  issued_at: number
  expires_at: number
}

/** Signatures of changing requests, each of which counts once. */
export interface UsedSignatureRow {
  /** SHA-256 over access key and signature, hex. */
  hash: string
  /** From then on the signature is refused for its age anyway. */
  expires_at: number
}
