import type { Migration } from './migration.ts'

/** Domains, projects, users, roles, access keys, tokens. */
export const identity: Migration = {
  name: '0002-identity',
  async up(db) {
    await db.schema
      .createTable('domains')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('name', 'text', (c) => c.notNull().unique())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .execute()
    await db.schema
      .createTable('projects')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('domain', 'text', (c) => c.notNull().references('domains.id'))
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('description', 'text', (c) => c.notNull())
      .addColumn('enabled', 'integer', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addUniqueConstraint('projects_name', ['domain', 'name'])
      .execute()
    await db.schema
      .createTable('users')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('domain', 'text', (c) => c.notNull().references('domains.id'))
      .addColumn('name', 'text', (c) => c.notNull())
      .addColumn('enabled', 'integer', (c) => c.notNull())
      .addColumn('password_hash', 'text', (c) => c.notNull())
      .addColumn('password_changed_at', 'bigint', (c) => c.notNull())
      .addColumn('default_project', 'text', (c) => c.references('projects.id'))
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addUniqueConstraint('users_name', ['domain', 'name'])
      .execute()
    await db.schema
      .createTable('role_grants')
      .addColumn('user_id', 'text', (c) => c.notNull().references('users.id'))
      .addColumn('scope', 'text', (c) => c.notNull())
      .addColumn('scope_id', 'text', (c) => c.notNull())
      .addColumn('role', 'text', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .addPrimaryKeyConstraint('role_grants_key', ['user_id', 'scope', 'scope_id'])
      .execute()
    await db.schema
      .createTable('access_keys')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('user_id', 'text', (c) => c.notNull().references('users.id'))
      .addColumn('project', 'text', (c) => c.references('projects.id'))
      .addColumn('description', 'text', (c) => c.notNull())
      .addColumn('sealed_secret', 'text', (c) => c.notNull())
      .addColumn('enabled', 'integer', (c) => c.notNull())
      .addColumn('created_at', 'bigint', (c) => c.notNull())
      .execute()
    await db.schema.createIndex('access_keys_by_user').on('access_keys').column('user_id').execute()
    await db.schema
      .createTable('tokens')
      .addColumn('hash', 'text', (c) => c.primaryKey())
      .addColumn('audit_id', 'text', (c) => c.notNull().unique())
      .addColumn('parent', 'text')
      .addColumn('user_id', 'text', (c) => c.notNull().references('users.id'))
      .addColumn('scope', 'text', (c) => c.notNull())
      .addColumn('scope_id', 'text')
      .addColumn('methods', 'text', (c) => c.notNull())
      .addColumn('issued_at', 'bigint', (c) => c.notNull())
      .addColumn('expires_at', 'bigint', (c) => c.notNull())
      .execute()
    await db.schema.createIndex('tokens_by_user').on('tokens').column('user_id').execute()
    await db.schema.createIndex('tokens_by_parent').on('tokens').column('parent').execute()
    await db.schema.createIndex('tokens_by_end').on('tokens').column('expires_at').execute()
    await db.schema
      .createTable('used_signatures')
      .addColumn('hash', 'text', (c) => c.primaryKey())
      .addColumn('expires_at', 'bigint', (c) => c.notNull())
      .execute()
    await db.schema
      .createIndex('used_signatures_by_end')
      .on('used_signatures')
      .column('expires_at')
      .execute()
  },
}
