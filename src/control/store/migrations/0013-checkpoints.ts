import type { Kysely } from 'kysely'
import type { Migration } from './migration.ts'

/** Backup policies, checkpoints, restores, and replicas. */
export const checkpoints: Migration = {
  name: '0013-checkpoints',
  async up(db) {
    await plans(db)
    await made(db)
    await copiesAndRestores(db)
    for (const [name, table, columns] of INDEXES) {
      await db.schema
        .createIndex(name)
        .on(table)
        .columns([...columns])
        .execute()
    }
  },
}

/** Lists are by project, newest first, and look for names in the index itself; sweeps are by policy, the scheduler by what is due. */
const INDEXES: readonly (readonly [name: string, table: string, columns: readonly string[]])[] = [
  ['backup_plans_by_project', 'backup_plans', ['project', 'created_at', 'id']],
  ['backup_plan_resources_by_resource', 'backup_plan_resources', ['resource']],
  ['backup_triggers_by_project', 'backup_triggers', ['project', 'created_at', 'id']],
  ['backup_schedules_by_plan', 'backup_schedules', ['plan']],
  ['backup_schedules_by_trigger', 'backup_schedules', ['trigger_id']],
  ['backup_schedules_due', 'backup_schedules', ['enabled', 'next_at']],
  ['checkpoints_by_project', 'checkpoints', ['project', 'created_at', 'id']],
  ['checkpoints_by_plan', 'checkpoints', ['plan', 'created_at']],
  [
    'checkpoint_items_by_project',
    'checkpoint_items',
    ['project', 'created_at', 'id', 'status', 'name', 'resource_name'],
  ],
  ['checkpoint_items_by_name', 'checkpoint_items', ['project', 'name']],
  ['checkpoint_items_by_checkpoint', 'checkpoint_items', ['checkpoint']],
  ['checkpoint_items_by_policy', 'checkpoint_items', ['policy', 'resource']],
  ['checkpoint_items_of_policy', 'checkpoint_items', ['project', 'policy', 'created_at', 'id']],
  ['checkpoint_items_by_resource', 'checkpoint_items', ['resource', 'taken_at']],
  ['checkpoint_items_of_resource', 'checkpoint_items', ['project', 'resource', 'created_at', 'id']],
  ['checkpoint_items_by_vault', 'checkpoint_items', ['vault_checkpoint']],
  ['disk_backups_by_item', 'disk_backups', ['item', 'place']],
  ['replication_records_by_item', 'replication_records', ['item']],
  ['replication_records_by_project', 'replication_records', ['project', 'created_at', 'id']],
  ['restores_by_project', 'restores', ['project', 'created_at', 'id']],
  ['backup_logs_by_project', 'backup_logs', ['project', 'started_at', 'id']],
  ['verifications_by_project', 'verifications', ['project', 'created_at', 'id']],
]

async function plans(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('backup_plans')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('user_id', 'text', (c) => c.notNull())
    .addColumn('form', 'text', (c) => c.notNull())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('description', 'text')
    .addColumn('provider', 'text', (c) => c.notNull())
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('parameters', 'text', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createTable('backup_plan_resources')
    .addColumn('plan', 'text', (c) => c.notNull())
    .addColumn('resource', 'text', (c) => c.notNull())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('place', 'integer', (c) => c.notNull())
    .addColumn('type', 'text', (c) => c.notNull())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('extra_info', 'text', (c) => c.notNull())
    .addPrimaryKeyConstraint('backup_plan_resources_pk', ['plan', 'resource'])
    .execute()
  await db.schema
    .createTable('backup_triggers')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('plan', 'text')
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('pattern', 'text', (c) => c.notNull())
    .addColumn('format', 'text', (c) => c.notNull())
    .addColumn('start_at', 'bigint', (c) => c.notNull())
    .addColumn('end_at', 'bigint')
    .addColumn('window_s', 'integer', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createTable('backup_schedules')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('plan', 'text', (c) => c.notNull())
    .addColumn('trigger_id', 'text', (c) => c.notNull())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('description', 'text')
    .addColumn('operation_type', 'text', (c) => c.notNull())
    .addColumn('enabled', 'integer', (c) => c.notNull())
    .addColumn('definition', 'text', (c) => c.notNull())
    .addColumn('next_at', 'bigint')
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .execute()
}

async function made(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('checkpoints')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('provider', 'text', (c) => c.notNull())
    .addColumn('plan', 'text')
    .addColumn('plan_snapshot', 'text', (c) => c.notNull())
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('scheduled', 'integer', (c) => c.notNull())
    .addColumn('extra_info', 'text')
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createTable('checkpoint_items')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('checkpoint', 'text', (c) => c.notNull())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('description', 'text')
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('resource_type', 'text', (c) => c.notNull())
    .addColumn('resource', 'text', (c) => c.notNull())
    .addColumn('resource_name', 'text', (c) => c.notNull())
    .addColumn('resource_az', 'text', (c) => c.notNull())
    .addColumn('policy', 'text')
    .addColumn('scheduled', 'integer', (c) => c.notNull())
    .addColumn('replica', 'integer', (c) => c.notNull())
    .addColumn('copy_from', 'text')
    .addColumn('incremental', 'integer', (c) => c.notNull())
    .addColumn('progress', 'integer', (c) => c.notNull())
    .addColumn('size_mb', 'bigint', (c) => c.notNull())
    .addColumn('average_speed', 'bigint', (c) => c.notNull())
    .addColumn('space_saving', 'integer', (c) => c.notNull())
    .addColumn('copy_status', 'text', (c) => c.notNull())
    .addColumn('fail_op', 'text')
    .addColumn('fail_code', 'text')
    .addColumn('fail_reason', 'text')
    .addColumn('backup_data', 'text', (c) => c.notNull())
    .addColumn('address', 'text')
    .addColumn('images', 'text', (c) => c.notNull())
    .addColumn('periodic_type', 'text')
    .addColumn('expires_at', 'bigint')
    .addColumn('vault_checkpoint', 'text')
    .addColumn('operation', 'text', (c) => c.notNull())
    .addColumn('taken_at', 'bigint')
    .addColumn('finished_at', 'bigint')
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createTable('disk_backups')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('item', 'text', (c) => c.notNull())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('place', 'integer', (c) => c.notNull())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('system', 'integer', (c) => c.notNull())
    .addColumn('size_gb', 'integer', (c) => c.notNull())
    .addColumn('size_mb', 'bigint', (c) => c.notNull())
    .addColumn('incremental', 'integer', (c) => c.notNull())
    .addColumn('average_speed', 'bigint', (c) => c.notNull())
    .addColumn('space_saving', 'integer', (c) => c.notNull())
    .addColumn('volume', 'text', (c) => c.notNull())
    .addColumn('volume_name', 'text')
    .execute()
}

async function copiesAndRestores(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('replication_records')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('item', 'text', (c) => c.notNull())
    .addColumn('checkpoint', 'text', (c) => c.notNull())
    .addColumn('policy', 'text')
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('destination_region', 'text', (c) => c.notNull())
    .addColumn('destination_project', 'text', (c) => c.notNull())
    .addColumn('destination_checkpoint', 'text')
    .addColumn('destination_item', 'text')
    .addColumn('destination_vault_checkpoint', 'text')
    .addColumn('scheduled', 'integer', (c) => c.notNull())
    .addColumn('accelerate', 'integer', (c) => c.notNull())
    .addColumn('name', 'text')
    .addColumn('description', 'text')
    .addColumn('progress', 'integer', (c) => c.notNull())
    .addColumn('sent_bytes', 'bigint', (c) => c.notNull())
    .addColumn('missing_bytes', 'bigint', (c) => c.notNull())
    .addColumn('fail_code', 'text')
    .addColumn('fail_reason', 'text')
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createTable('restores')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('provider', 'text', (c) => c.notNull())
    .addColumn('checkpoint', 'text', (c) => c.notNull())
    .addColumn('item', 'text')
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('target', 'text')
    .addColumn('parameters', 'text', (c) => c.notNull())
    .addColumn('resources_status', 'text', (c) => c.notNull())
    .addColumn('resources_reason', 'text', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .execute()
  await db.schema
    .createTable('backup_logs')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('operation_type', 'text', (c) => c.notNull())
    .addColumn('checkpoint', 'text')
    .addColumn('plan', 'text')
    .addColumn('provider', 'text')
    .addColumn('restore', 'text')
    .addColumn('schedule', 'text')
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('started_at', 'bigint', (c) => c.notNull())
    .addColumn('ended_at', 'bigint')
    .addColumn('error_info', 'text')
    .addColumn('extra_info', 'text')
    .execute()
  await db.schema
    .createTable('verifications')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('project', 'text', (c) => c.notNull())
    .addColumn('provider', 'text', (c) => c.notNull())
    .addColumn('checkpoint', 'text', (c) => c.notNull())
    .addColumn('parameters', 'text', (c) => c.notNull())
    .addColumn('status', 'text', (c) => c.notNull())
    .addColumn('resources_status', 'text', (c) => c.notNull())
    .addColumn('resources_reason', 'text', (c) => c.notNull())
    .addColumn('created_at', 'bigint', (c) => c.notNull())
    .addColumn('updated_at', 'bigint', (c) => c.notNull())
    .execute()
}
