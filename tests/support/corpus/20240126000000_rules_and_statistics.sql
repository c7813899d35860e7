create rule orders_log as on delete to at_no_risk do also notify at_no_risk_deleted;
create statistics orders_stats (dependencies) on user_id, status from orders;
create publication shop for table at_no_risk (id);
alter table dumped replica identity full;
