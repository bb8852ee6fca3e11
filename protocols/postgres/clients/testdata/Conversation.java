// The conversation, by the JDBC driver.

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.util.PSQLException;

public class Conversation {
    interface Run { void run() throws Exception; }

    static void say(String what, Object text) { System.out.println(what + ": " + text); }

    /** Runs what must fail, and returns its error. */
    static PSQLException refused(Run r) throws Exception {
        try {
            r.run();
        } catch (PSQLException e) {
            return e;
        }
        throw new Exception("it was not refused");
    }

    static String fault(PSQLException e) {
        return e.getSQLState() + "; " + e.getServerErrorMessage().getDetail() + "; " + e.getServerErrorMessage().getHint();
    }

    public static void main(String[] args) throws Exception {
        String name = args[0];
        Map<String, String> env = System.getenv();
        String url = "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE");
        try (Connection c = DriverManager.getConnection(url, env.get("PGUSER"), env.get("PGPASSWORD")); Statement s = c.createStatement()) {
            try (ResultSet r = s.executeQuery("select id, name, email from customers order by id")) {
                r.next();
                say("masked", r.getInt("id") + " " + r.getString("name") + " " + r.getString("email"));
            }
            try (PreparedStatement p = c.prepareStatement("select id, name, note from customers where id = ? and name = ?")) {
                p.setInt(1, 2);
                p.setString(2, "Bob");
                ResultSet r = p.executeQuery();
                r.next();
                say("parameters", r.getInt(1) + " " + r.getString(2) + " " + r.getString(3));
            }
            List<String> names = new ArrayList<>();
            try (PreparedStatement p = c.prepareStatement("select name from customers where id = ?")) {
                for (int i = 0; i < 8; i++) { // from the fifth on it has a name at the server, and answers are binary
                    p.setInt(1, i % 2 + 1);
                    ResultSet r = p.executeQuery();
                    r.next();
                    names.add(r.getString(1));
                }
            }
            say("prepared", String.join(" ", names));
            try (PreparedStatement p = c.prepareStatement("select price, paid, day, list, doc -> 'a' ->> 0 from kinds")) {
                String first = null;
                for (int i = 0; i < 8; i++) {
                    ResultSet r = p.executeQuery();
                    r.next();
                    Integer[] list = (Integer[]) r.getArray(4).getArray();
                    String k = r.getBigDecimal(1) + " " + r.getBoolean(2) + " " + r.getDate(3) + " " + list[0] + "," + list[1] + " " + r.getInt(5);
                    if (first != null && !first.equals(k)) throw new Exception(first + ", and later " + k);
                    first = k;
                }
                say("kinds", first);
            }
            say("refused", fault(refused(() -> s.execute("drop table customers"))));
            try (ResultSet r = s.executeQuery("select 1")) {
                r.next();
                say("usable", r.getInt(1));
            }
            say("unbounded", fault(refused(() -> s.executeUpdate("delete from customers"))));

            c.setAutoCommit(false);
            try (PreparedStatement p = c.prepareStatement("insert into written values (?, ?)")) {
                p.setString(1, name);
                p.setInt(2, 99);
                p.executeUpdate();
            }
            String first = refused(() -> s.execute("drop table written")).getSQLState();
            String second = refused(() -> s.execute("select 1")).getSQLState();
            c.rollback();
            c.setAutoCommit(true);
            say("transaction", first + " " + second + " " + count(c, name));
            try (PreparedStatement p = c.prepareStatement("insert into written values (?, ?)")) {
                for (int i = 0; i < 3; i++) {
                    p.setString(1, name);
                    p.setInt(2, i);
                    p.addBatch();
                }
                p.executeBatch();
            }
            try (PreparedStatement p = c.prepareStatement("delete from written where client = ? and n = ?")) {
                p.setString(1, name);
                p.setInt(2, 0);
                p.executeUpdate();
            }
            say("written", count(c, name));

            var copy = c.unwrap(PGConnection.class).getCopyAPI();
            StringWriter out = new StringWriter();
            copy.copyOut("copy (select id, name from customers order by id) to stdout", out);
            say("copy out", out.toString().trim().replace("\t", " ").replace("\n", ", "));
            String rows = name + "\t10\n" + name + "\t11\n" + name + "\t12\n";
            say("copy in", copy.copyIn("copy written (client, n) from stdin", new StringReader(rows)));
            say("copy refused", fault(refused(() -> copy.copyOut("copy (delete from written returning n) to stdout", new StringWriter()))));

            Timer timer = new Timer(true);
            timer.schedule(new TimerTask() {
                public void run() {
                    try {
                        s.cancel();
                    } catch (SQLException e) {
                        e.printStackTrace();
                    }
                }
            }, 500);
            say("cancelled", refused(() -> s.execute("select pg_sleep(30)")).getSQLState());
            try (ResultSet r = s.executeQuery("select 1")) {
                r.next();
                say("end", r.getInt(1));
            }
        }
    }

    static int count(Connection c, String name) throws SQLException {
        try (PreparedStatement p = c.prepareStatement("select count(*) from written where client = ?")) {
            p.setString(1, name);
            ResultSet r = p.executeQuery();
            r.next();
            return r.getInt(1);
        }
    }
}
