import type { Kysely } from 'kysely'
import type { Migration } from './migration.ts'

/** Volumes, protection groups, pairs, and what they refer to. */
export const resources: Migration = {
  name: '0003-resources',
  async up(db) {
    await volumes(db)
    await replication(db)
    await surroundings(db)
  },
}

async function volumes(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('volumes')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('name', 'text')
    .addColumn('description', 'text')
    .addColumn('size_gb', 'integer', (c) => c.notNull())
    .addColumn('volume_type', 'text', (c) => c.notNull())
    .addColumn('az', 'text', (c) => c.notNull())
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('metadata', 'text', (c) => c.notNull())
    .addColumn('bootable', 'integer', (c) => c.notNull())
    .addColumn('multiattach', 'integer', (c) => c.notNull())
    .addColumn('attachments', 'text', (c) => c.notNull())
    .addColumn('pair', 'text')
    .addColumn('user_id', 'text', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createIndex('volumes_by_project')
    .on('volumes')
    .columns(['project', 'created_at', 'id'])
    .execute()
  await db.schema
    .createTable('volume_types')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('name', 'text', (c) => c.notNull().unique())
    .addColumn('description', 'text', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .execute()
}

async function replication(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('protection_groups')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('description', 'text')
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('station', 'text', (c) => c.notNull())
    .addColumn('reversing_to', 'text')
    .addColumn('source_az', 'text', (c) => c.notNull())
    .addColumn('target_az', 'text', (c) => c.notNull())
    .addColumn('domain', 'text', (c) => c.notNull())
    .addColumn('vpc', 'text', (c) => c.notNull())
    .addColumn('next_member', 'integer', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createIndex('protection_groups_by_project')
    .on('protection_groups')
    .columns(['project', 'created_at', 'id'])
    .execute()
  await db.schema
    .createTable('replication_pairs')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('group_id', 'text', (c) => c.notNull().references('protection_groups.id'))
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('description', 'text')
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('source_volume', 'text', (c) => c.notNull())
    .addColumn('target_volume', 'text', (c) => c.notNull())
    .addColumn('member', 'integer', (c) => c.notNull())
    .addColumn('in_session', 'integer', (c) => c.notNull())
    .addColumn('added_epoch', 'integer', (c) => c.notNull())
    .addColumn('blank_epoch', 'integer')
    .addColumn('never_replicated', 'integer', (c) => c.notNull())
    .addColumn('progress', 'integer', (c) => c.notNull())
    .addColumn('attachments', 'text', (c) => c.notNull())
    .addColumn('failure_detail', 'text')
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .addUniqueConstraint('replication_pairs_member', ['group_id', 'member'])
    .execute()
  await db.schema
    .createIndex('replication_pairs_by_project')
    .on('replication_pairs')
    .columns(['project', 'created_at', 'id'])
    .execute()
}

async function surroundings(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('active_domains')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('description', 'text', (c) => c.notNull())
    .addColumn('local_az', 'text', (c) => c.notNull())
    .addColumn('remote_az', 'text', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createTable('vpcs')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('cidr', 'text', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema.createIndex('vpcs_by_project').on('vpcs').column('project').execute()
  await db.schema
    .createTable('quotas')
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('kind', 'text', (c) => c.notNull())
    .addColumn('quota_limit', 'integer', (c) => c.notNull())
    .addPrimaryKeyConstraint('quotas_key', ['project', 'kind'])
    .execute()
  await db.schema
    .createTable('site_chores')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('site', 'text', (c) => c.notNull())
    .addColumn('command', 'text', (c) => c.notNull())
    .addColumn('request', 'text', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('attempts', 'integer', (c) => c.notNull())
    .addColumn('last_error', 'text')
    .execute()
  await db.schema
    .createIndex('site_chores_by_site')
    .on('site_chores')
    .columns(['site', 'created_at'])
    .execute()
  await db.schema
    .createTable('dismissed_failures')
    .addColumn('operation', 'text', (c) => c.primaryKey().references('operations.id'))
    .addColumn('project', 'text', (c) => c.notNull())
    .execute()
}
