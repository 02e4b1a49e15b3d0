mod http_limits;
mod http_metrics;
mod http_support;
mod http_table;
