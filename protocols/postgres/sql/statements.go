package sql

import (
	"strings"

	"github.com/weir-gateway/weir/core"
)

// actions are the words for statements whose node is not named for its SQL keyword.
var actions = map[string]string{
	"VariableSetStmt": "set", "VariableShowStmt": "show", "TransactionStmt": "transaction", "DeclareCursorStmt": "declare",
	"ClosePortalStmt": "close", "CreateTableAsStmt": "create table as", "RefreshMatViewStmt": "refresh materialized view",
	"IndexStmt": "create index", "ViewStmt": "create view", "RuleStmt": "create rule", "CreateStmt": "create table",
	"CheckPointStmt": "checkpoint", "CreatedbStmt": "create database", "DropdbStmt": "drop database",
	"ConstraintsSetStmt": "set constraints", "CreateTrigStmt": "create trigger", "CreatePLangStmt": "create language",
	"RenameStmt": "alter", "DefineStmt": "create", "CreateSeqStmt": "create sequence",
	"SecLabelStmt": "security label", "GrantRoleStmt": "grant", "AlterRoleSetStmt": "alter role",
}

// actionOf returns the lower-case word for a statement: "select", "create table", "alter role" …
func actionOf(typ string) string {
	if a := actions[typ]; a != "" {
		return a
	}
	var b strings.Builder
	for i, r := range strings.TrimSuffix(typ, "Stmt") {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte(' ')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// plain are the statements whose effects follow from their kind alone. Their parts are walked as well: the tables
// they name, the queries and functions inside.
var plain = map[string]struct {
	use     string
	effects []core.Effect
}{
	"VariableShowStmt": {"read", []core.Effect{core.EffectRead}}, "TransactionStmt": {"", []core.Effect{core.EffectSession}},
	"ConstraintsSetStmt": {"", []core.Effect{core.EffectSession}}, "ListenStmt": {"", []core.Effect{core.EffectSession}},
	"UnlistenStmt": {"", []core.Effect{core.EffectSession}}, "NotifyStmt": {"", []core.Effect{core.EffectWrite}},
	"ClosePortalStmt": {"", []core.Effect{core.EffectSession}}, "DiscardStmt": {"", []core.Effect{core.EffectSession}},
	"LockStmt": {"lock", []core.Effect{core.EffectSession}},

	"VacuumStmt": {"maintain", []core.Effect{core.EffectAdmin}}, "ClusterStmt": {"maintain", []core.Effect{core.EffectAdmin}},
	"ReindexStmt": {"maintain", []core.Effect{core.EffectAdmin}}, "CheckPointStmt": {"", []core.Effect{core.EffectAdmin}},
	"AlterSystemStmt": {"", []core.Effect{core.EffectAdmin}}, "LoadStmt": {"", []core.Effect{core.EffectAdmin, core.EffectFile}},
	"CreatedbStmt": {"", []core.Effect{core.EffectAdmin, core.EffectDDL}}, "DropdbStmt": {"", []core.Effect{core.EffectAdmin, core.EffectDDL}},
	"AlterDatabaseStmt":            {"", []core.Effect{core.EffectAdmin, core.EffectDDL}},
	"AlterDatabaseRefreshCollStmt": {"", []core.Effect{core.EffectAdmin, core.EffectDDL}},
	"AlterDatabaseSetStmt":         {"", []core.Effect{core.EffectAdmin, core.EffectPrivilege}},
	"CreateTableSpaceStmt":         {"", []core.Effect{core.EffectAdmin, core.EffectFile}},
	"DropTableSpaceStmt":           {"", []core.Effect{core.EffectAdmin}},
	"AlterTableSpaceOptionsStmt":   {"", []core.Effect{core.EffectAdmin}},
	"AlterTableMoveAllStmt":        {"", []core.Effect{core.EffectAdmin, core.EffectDDL}},
	"CreatePLangStmt":              {"", []core.Effect{core.EffectAdmin, core.EffectDDL}},
	"CreateExtensionStmt":          {"", []core.Effect{core.EffectAdmin, core.EffectDDL}},
	"AlterExtensionStmt":           {"", []core.Effect{core.EffectAdmin, core.EffectDDL}},
	"AlterExtensionContentsStmt":   {"", []core.Effect{core.EffectAdmin, core.EffectDDL}},
	"CreateFdwStmt":                {"", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"AlterFdwStmt":                 {"", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"CreateForeignServerStmt":      {"", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"AlterForeignServerStmt":       {"", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"CreateForeignTableStmt":       {"create", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"CreateUserMappingStmt":        {"", []core.Effect{core.EffectNetwork, core.EffectPrivilege}},
	"AlterUserMappingStmt":         {"", []core.Effect{core.EffectNetwork, core.EffectPrivilege}},
	"DropUserMappingStmt":          {"", []core.Effect{core.EffectNetwork, core.EffectPrivilege}},
	"ImportForeignSchemaStmt":      {"", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"CreateSubscriptionStmt":       {"", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"AlterSubscriptionStmt":        {"", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"DropSubscriptionStmt":         {"", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"CreatePublicationStmt":        {"", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"AlterPublicationStmt":         {"", []core.Effect{core.EffectNetwork, core.EffectDDL}},
	"GrantStmt":                    {"grant", []core.Effect{core.EffectPrivilege}},
	"GrantRoleStmt":                {"", []core.Effect{core.EffectPrivilege}},
	"AlterDefaultPrivilegesStmt":   {"", []core.Effect{core.EffectPrivilege}},
	"CreateRoleStmt":               {"", []core.Effect{core.EffectPrivilege}},
	"AlterRoleStmt":                {"", []core.Effect{core.EffectPrivilege}},
	"AlterRoleSetStmt":             {"", []core.Effect{core.EffectPrivilege}},
	"DropRoleStmt":                 {"", []core.Effect{core.EffectPrivilege}},
	"AlterOwnerStmt":               {"alter", []core.Effect{core.EffectPrivilege, core.EffectDDL}},
	"ReassignOwnedStmt":            {"", []core.Effect{core.EffectPrivilege}},
	"DropOwnedStmt":                {"", []core.Effect{core.EffectPrivilege, core.EffectDDL}},
	"CreatePolicyStmt":             {"alter", []core.Effect{core.EffectPrivilege, core.EffectDDL}},
	"AlterPolicyStmt":              {"alter", []core.Effect{core.EffectPrivilege, core.EffectDDL}},
	"SecLabelStmt":                 {"", []core.Effect{core.EffectPrivilege}},
	"CreateStmt":                   {"create", []core.Effect{core.EffectDDL}},
	"IndexStmt":                    {"alter", []core.Effect{core.EffectDDL}},
	"ViewStmt":                     {"create", []core.Effect{core.EffectDDL}},
	"AlterTableStmt":               {"alter", []core.Effect{core.EffectDDL}},
	"RenameStmt":                   {"alter", []core.Effect{core.EffectDDL}},
	"RuleStmt":                     {"alter", []core.Effect{core.EffectDDL}},
	"CreateTrigStmt":               {"alter", []core.Effect{core.EffectDDL}},
	"AlterObjectSchemaStmt":        {"alter", []core.Effect{core.EffectDDL}},
	"AlterObjectDependsStmt":       {"alter", []core.Effect{core.EffectDDL}},
	"ReplicaIdentityStmt":          {"alter", []core.Effect{core.EffectDDL}},
	"RefreshMatViewStmt":           {"write", []core.Effect{core.EffectDDL, core.EffectWrite}},
	"CreateSeqStmt":                {"create", []core.Effect{core.EffectDDL}},
	"AlterSeqStmt":                 {"alter", []core.Effect{core.EffectDDL}},
	"CommentStmt":                  {"", []core.Effect{core.EffectDDL}},
	"CreateSchemaStmt":             {"", []core.Effect{core.EffectDDL}},
	"DefineStmt":                   {"", []core.Effect{core.EffectDDL}},
	"CreateDomainStmt":             {"", []core.Effect{core.EffectDDL}},
	"AlterDomainStmt":              {"", []core.Effect{core.EffectDDL}},
	"CompositeTypeStmt":            {"", []core.Effect{core.EffectDDL}},
	"CreateEnumStmt":               {"", []core.Effect{core.EffectDDL}},
	"AlterEnumStmt":                {"", []core.Effect{core.EffectDDL}},
	"CreateRangeStmt":              {"", []core.Effect{core.EffectDDL}},
	"AlterTypeStmt":                {"", []core.Effect{core.EffectDDL}},
	"AlterCollationStmt":           {"", []core.Effect{core.EffectDDL}},
	"CreateFunctionStmt":           {"", []core.Effect{core.EffectDDL}},
	"AlterFunctionStmt":            {"", []core.Effect{core.EffectDDL}},
	"AlterOperatorStmt":            {"", []core.Effect{core.EffectDDL}},
	"CreateOpClassStmt":            {"", []core.Effect{core.EffectDDL}},
	"CreateOpFamilyStmt":           {"", []core.Effect{core.EffectDDL}},
	"AlterOpFamilyStmt":            {"", []core.Effect{core.EffectDDL}},
	"CreateCastStmt":               {"", []core.Effect{core.EffectDDL}},
	"CreateConversionStmt":         {"", []core.Effect{core.EffectDDL}},
	"CreateTransformStmt":          {"", []core.Effect{core.EffectDDL}},
	"CreateAmStmt":                 {"", []core.Effect{core.EffectDDL, core.EffectAdmin}},
	"CreateEventTrigStmt":          {"", []core.Effect{core.EffectDDL, core.EffectAdmin}},
	"AlterEventTrigStmt":           {"", []core.Effect{core.EffectDDL, core.EffectAdmin}},
	"CreateStatsStmt":              {"alter", []core.Effect{core.EffectDDL}},
	"AlterStatsStmt":               {"", []core.Effect{core.EffectDDL}},
	"AlterTSDictionaryStmt":        {"", []core.Effect{core.EffectDDL}},
	"AlterTSConfigurationStmt":     {"", []core.Effect{core.EffectDDL}},
}
