package sql

import (
	_ "embed"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// functions.txt lists the functions of pg_catalog that neither change anything nor reach outside the database:
// the server's own immutable and stable ones. `make generate` asks a server for it.
//
//go:embed functions.txt
var functionList string

var harmless = func() map[string]bool {
	m := map[string]bool{}
	for _, f := range strings.Fields(functionList) {
		m[f] = true
	}
	for _, f := range strings.Fields(`clock_timestamp gen_random_uuid random timeofday txid_status lastval currval
		current_query pg_blocking_pids pg_database_size pg_table_size pg_total_relation_size pg_relation_size
		pg_indexes_size pg_tablespace_size pg_is_in_recovery pg_sequence_last_value pg_partition_tree
		pg_partition_ancestors pg_lock_status pg_prepared_xact pg_xact_status pg_xact_commit_timestamp
		pg_current_wal_lsn pg_current_wal_insert_lsn pg_current_wal_flush_lsn pg_last_wal_receive_lsn
		pg_last_wal_replay_lsn pg_notification_queue_usage pg_jit_available pg_stat_have_stats
		pg_database_collation_actual_version pg_collation_actual_version pg_get_multixact_members
		any_value array_shuffle array_sample date_add date_subtract erf erfc gamma lgamma casefold crc32 crc32c
		json_array json_arrayagg json_object json_objectagg json_scalar json_serialize json_exists json_query
		json_value json_table pg_input_is_valid pg_input_error_info random_normal system_user to_bin to_oct
		unicode_assigned unicode_version icu_unicode_version uuid_extract_timestamp uuid_extract_version uuidv4
		uuidv7 xmltext reverse array_sort array_reverse pg_basetype pg_get_acl to_regtypemod has_largeobject_privilege`) {
		m[f] = true
	}
	return m
}()

// special are the functions of pg_catalog and of the well-known extensions that do something, by what they do.
// A name that ends in * stands for all that begin so.
var special = func() map[string]core.Effect {
	m := map[string]core.Effect{}
	for effect, names := range map[core.Effect]string{
		core.EffectWrite: `nextval setval lo_creat lo_create lo_from_bytea lo_put lo_truncate lo_truncate64 lo_unlink lowrite
			lo_open pg_notify`,
		core.EffectRead:    `lo_get loread lo_close lo_lseek lo_lseek64 lo_tell lo_tell64`,
		core.EffectSession: `set_config setseed pg_export_snapshot pg_advisory_* pg_try_advisory_*`,
		core.EffectFile: `pg_read_file pg_read_file_old pg_read_binary_file pg_ls_* pg_stat_file pg_current_logfile
			pg_hba_file_rules pg_ident_file_mappings pg_show_all_file_settings pg_file_* pg_logdir_ls lo_import lo_export`,
		core.EffectProcess: `pg_terminate_backend pg_cancel_backend pg_sleep pg_sleep_for pg_sleep_until`,
		core.EffectNetwork: `dblink* postgres_fdw_*`,
		core.EffectAdmin: `pg_reload_conf pg_rotate_logfile pg_rotate_logfile_old pg_promote pg_switch_wal
			pg_create_restore_point pg_backup_* pg_start_backup pg_stop_backup pg_create_logical_replication_slot
			pg_create_physical_replication_slot pg_copy_logical_replication_slot pg_copy_physical_replication_slot
			pg_drop_replication_slot pg_replication_* pg_logical_* pg_log_backend_memory_contexts pg_wal_replay_*
			pg_stat_reset* pg_stat_clear_snapshot pg_stat_force_next_flush binary_upgrade_* pg_import_system_collations
			pg_nextoid pg_extension_config_dump pg_stop_making_pinned_objects pg_get_backend_memory_contexts
			pg_get_shmem_allocations pg_control_* brin_* gin_clean_pending_list pg_config`,
		// These run the text or read the table that an argument names: nothing can be said of them.
		core.EffectUnknown: `query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema
			table_to_xml table_to_xmlschema table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema
			schema_to_xml_and_xmlschema database_to_xml database_to_xmlschema database_to_xml_and_xmlschema
			ts_stat ts_rewrite connectby* crosstab*`,
	} {
		for _, n := range strings.Fields(names) {
			m[n] = effect
		}
	}
	return m
}()

// functionEffect says what calling a function may do. known is false for a function that is not the server's own.
func functionEffect(schema, name string) (effect core.Effect, known bool) {
	if e, ok := special[name]; ok {
		return e, true
	}
	for i := len(name); i > 0; i-- {
		if e, ok := special[name[:i]+"*"]; ok {
			return e, true
		}
	}
	if (schema == "" || schema == "pg_catalog") && harmless[name] {
		return core.EffectRead, true
	}
	return core.EffectUnknown, false
}

// fromExtension reports whether a special function is not in pg_catalog.
func fromExtension(name string) bool {
	for _, p := range []string{"dblink", "postgres_fdw_", "pg_file_", "pg_logdir_ls", "connectby", "crosstab"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
