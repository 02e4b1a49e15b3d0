mod etcd_edge;
mod support;
