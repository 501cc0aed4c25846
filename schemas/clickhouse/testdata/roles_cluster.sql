CREATE USER IF NOT EXISTS `uptake_views` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b' HOST NONE;

GRANT ON CLUSTER `main` SELECT ON `uptake`.*, SELECT ON `uptake_internal`.* TO `uptake_views` WITH REPLACE OPTION;

CREATE ROLE IF NOT EXISTS `uptake_migrator` ON CLUSTER `main`;

CREATE ROLE IF NOT EXISTS `uptake_writer` ON CLUSTER `main`;

CREATE ROLE IF NOT EXISTS `uptake_operator` ON CLUSTER `main`;

CREATE ROLE IF NOT EXISTS `uptake_console` ON CLUSTER `main`;

CREATE ROLE IF NOT EXISTS `uptake_alerts` ON CLUSTER `main`;

CREATE ROLE IF NOT EXISTS `uptake_analyst` ON CLUSTER `main`;

CREATE ROLE IF NOT EXISTS `uptake_every_app` ON CLUSTER `main`;

CREATE ROLE IF NOT EXISTS `uptake_console_of_app` ON CLUSTER `main`;

CREATE ROLE IF NOT EXISTS `uptake_app_dev` ON CLUSTER `main`;

CREATE ROLE IF NOT EXISTS `uptake_app_store` ON CLUSTER `main`;

CREATE ROLE IF NOT EXISTS `uptake_app_o'\\x` ON CLUSTER `main`;

CREATE ROW POLICY OR REPLACE `uptake_apps` ON CLUSTER `main` ON `uptake`.`accounts` FOR SELECT USING app_id IN (SELECT substring(r, 12) FROM (SELECT arrayJoin(enabledRoles()) AS r) WHERE startsWith(r, 'uptake_app_')) TO `uptake_analyst`, `uptake_console_of_app`;

CREATE ROW POLICY OR REPLACE `uptake_every` ON CLUSTER `main` ON `uptake`.`accounts` FOR SELECT USING 1 TO `uptake_every_app`;

CREATE ROW POLICY OR REPLACE `uptake_others` ON CLUSTER `main` ON `uptake`.`accounts` FOR SELECT USING 1 TO ALL EXCEPT `uptake_analyst`, `uptake_console_of_app`;

CREATE ROW POLICY OR REPLACE `uptake_apps` ON CLUSTER `main` ON `uptake`.`events` FOR SELECT USING app_id IN (SELECT substring(r, 12) FROM (SELECT arrayJoin(enabledRoles()) AS r) WHERE startsWith(r, 'uptake_app_')) TO `uptake_analyst`, `uptake_console_of_app`;

CREATE ROW POLICY OR REPLACE `uptake_every` ON CLUSTER `main` ON `uptake`.`events` FOR SELECT USING 1 TO `uptake_every_app`;

CREATE ROW POLICY OR REPLACE `uptake_others` ON CLUSTER `main` ON `uptake`.`events` FOR SELECT USING 1 TO ALL EXCEPT `uptake_analyst`, `uptake_console_of_app`;

CREATE ROW POLICY OR REPLACE `uptake_apps` ON CLUSTER `main` ON `uptake`.`usage_hourly` FOR SELECT USING app_id IN (SELECT substring(r, 12) FROM (SELECT arrayJoin(enabledRoles()) AS r) WHERE startsWith(r, 'uptake_app_')) TO `uptake_analyst`, `uptake_console_of_app`;

CREATE ROW POLICY OR REPLACE `uptake_every` ON CLUSTER `main` ON `uptake`.`usage_hourly` FOR SELECT USING 1 TO `uptake_every_app`;

CREATE ROW POLICY OR REPLACE `uptake_others` ON CLUSTER `main` ON `uptake`.`usage_hourly` FOR SELECT USING 1 TO ALL EXCEPT `uptake_analyst`, `uptake_console_of_app`;

CREATE SETTINGS PROFILE OR REPLACE `uptake_reader` ON CLUSTER `main` SETTINGS readonly = 2, max_execution_time = 60 MIN 1 MAX 600, max_memory_usage = 8589934592 MIN 1 MAX 8589934592, max_threads = 8 MIN 1 MAX 8 TO `uptake_console`, `uptake_analyst`, `uptake_console_of_app`;

CREATE QUOTA OR REPLACE `uptake_reader` ON CLUSTER `main` KEYED BY user_name FOR INTERVAL 1 hour MAX queries = 10000, execution_time = 7200 TO `uptake_analyst`;

GRANT ON CLUSTER `main` SELECT, INSERT, ALTER, CREATE, DROP, SHOW ON `uptake`.*, SELECT, INSERT, ALTER, CREATE, DROP, SHOW ON `uptake_internal`.*, SET DEFINER ON `uptake_views`, TABLE ENGINE ON *, CLUSTER ON *.* TO `uptake_migrator` WITH REPLACE OPTION;

GRANT ON CLUSTER `main` SELECT, INSERT, SHOW ON `uptake`.*, SELECT, INSERT, SHOW ON `uptake_internal`.*, SELECT ON system.parts, SELECT ON system.replicas, SELECT ON system.zookeeper, SYSTEM SYNC REPLICA ON `uptake`.*, SYSTEM SYNC REPLICA ON `uptake_internal`.* TO `uptake_writer` WITH REPLACE OPTION;

GRANT ON CLUSTER `main` SELECT, INSERT, SHOW ON `uptake`.*, SELECT, INSERT, SHOW ON `uptake_internal`.*, SELECT ON system.parts, SELECT ON system.replicas, SELECT ON system.zookeeper, SYSTEM SYNC REPLICA ON `uptake`.*, SYSTEM SYNC REPLICA ON `uptake_internal`.*, ALTER, CREATE TABLE, DROP TABLE, TRUNCATE, OPTIMIZE ON `uptake`.*, ALTER, CREATE TABLE, DROP TABLE, TRUNCATE, OPTIMIZE ON `uptake_internal`.*, SELECT ON system.mutations, SELECT ON system.processes, TABLE ENGINE ON *, CLUSTER ON *.*, REMOTE, CREATE TEMPORARY TABLE ON *.* TO `uptake_operator` WITH REPLACE OPTION;

GRANT ON CLUSTER `main` SELECT, SHOW ON `uptake`.* TO `uptake_console` WITH REPLACE OPTION;

GRANT ON CLUSTER `main` SELECT, SHOW ON `uptake`.* TO `uptake_alerts` WITH REPLACE OPTION;

GRANT ON CLUSTER `main` SELECT ON `uptake`.`accounts`, SELECT ON `uptake`.`usage_hourly` TO `uptake_analyst` WITH REPLACE OPTION;

GRANT ON CLUSTER `main` SELECT ON `uptake`.`events` TO `uptake_every_app` WITH REPLACE OPTION;

GRANT ON CLUSTER `main` SELECT ON `uptake`.`accounts`, SELECT ON `uptake`.`usage_hourly`, SELECT ON `uptake`.`who_looked` TO `uptake_console_of_app` WITH REPLACE OPTION;

DROP ROW POLICY IF EXISTS `uptake_apps` ON `uptake`.`gone` ON CLUSTER `main`;

CREATE USER IF NOT EXISTS `uptake_migrator_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a';

GRANT ON CLUSTER `main` `uptake_migrator` TO `uptake_migrator_user` WITH REPLACE OPTION;

ALTER USER `uptake_migrator_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a' DEFAULT ROLE ALL;

CREATE USER IF NOT EXISTS `uptake_writer_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a';

GRANT ON CLUSTER `main` `uptake_writer` TO `uptake_writer_user` WITH REPLACE OPTION;

ALTER USER `uptake_writer_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a' DEFAULT ROLE ALL;

CREATE USER IF NOT EXISTS `uptake_operator_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a';

GRANT ON CLUSTER `main` `uptake_operator` TO `uptake_operator_user` WITH REPLACE OPTION;

ALTER USER `uptake_operator_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a' DEFAULT ROLE ALL;

CREATE USER IF NOT EXISTS `uptake_console_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a';

GRANT ON CLUSTER `main` `uptake_console` TO `uptake_console_user` WITH REPLACE OPTION;

ALTER USER `uptake_console_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a' DEFAULT ROLE ALL;

CREATE USER IF NOT EXISTS `uptake_alerts_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a';

GRANT ON CLUSTER `main` `uptake_alerts` TO `uptake_alerts_user` WITH REPLACE OPTION;

ALTER USER `uptake_alerts_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a' DEFAULT ROLE ALL;

CREATE USER IF NOT EXISTS `uptake_analyst_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a';

GRANT ON CLUSTER `main` `uptake_analyst`, `uptake_every_app` TO `uptake_analyst_user` WITH REPLACE OPTION;

ALTER USER `uptake_analyst_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a' DEFAULT ROLE ALL;

CREATE USER IF NOT EXISTS `uptake_analyst_dev_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a';

GRANT ON CLUSTER `main` `uptake_analyst`, `uptake_app_dev` TO `uptake_analyst_dev_user` WITH REPLACE OPTION;

ALTER USER `uptake_analyst_dev_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a' DEFAULT ROLE ALL;

CREATE USER IF NOT EXISTS `uptake_analyst_store_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a';

GRANT ON CLUSTER `main` `uptake_analyst`, `uptake_app_store` TO `uptake_analyst_store_user` WITH REPLACE OPTION;

ALTER USER `uptake_analyst_store_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a' DEFAULT ROLE ALL;

CREATE USER IF NOT EXISTS `uptake_console_dev_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a';

GRANT ON CLUSTER `main` `uptake_console_of_app`, `uptake_app_dev` TO `uptake_console_dev_user` WITH REPLACE OPTION;

ALTER USER `uptake_console_dev_user` ON CLUSTER `main` IDENTIFIED WITH sha256_hash BY '316614ab18cea44bbfbbafe8ffd37f8de697ea87349f40a736a1021c9d34660a' DEFAULT ROLE ALL;
